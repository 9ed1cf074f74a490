"""Solutions of day 27."""

import torch
from torch import Tensor, nn


def fused_projection(
    x: Tensor, weight: Tensor, bias: Tensor, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (
        part.unflatten(-1, (num_heads, -1)).transpose(1, 2)
        for part in (x @ weight.T + bias).chunk(3, dim=-1)
    )
    return query, key, value


def initialize(net: nn.Module, layers: int, generator: torch.Generator) -> None:
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, parameter in net.named_parameters():
        if name.endswith("c_proj.weight"):
            nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5, generator=generator)


@torch.no_grad()
def generate(net: nn.Module, tokens: Tensor, new_tokens: int, context: int) -> Tensor:
    for _ in range(new_tokens):
        logits = net(tokens[:, -context:])
        tokens = torch.cat([tokens, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return tokens


def load_gpt2(net: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in net.named_parameters():
        if name not in weights:
            raise ValueError(f"{name} is missing")
        value = weights[name]
        if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            value = value.T
        if value.shape != parameter.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
        parameter.data.copy_(value)
