"""Weights of 8 and 4 bits: linear layers and embeddings that are smaller and faster in generation.

int8: W ≈ s ⊙ Q with one scale per output, s = max |w| / 127 (LLM.int8(), Dettmers et al. 2022,
without its outliers). int4: 16 equal steps between the least and the largest weight of a group of
32 (affine, as Q4_1 of llama.cpp), on CPUs. modules/adapters/nf4.py has the layers of QLoRA,
modules/scratch/quantization.py absmax and NF4 on one screen; docs/quantization.md compares.
Activations stay in floating point.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("int8", "int4")
GROUP = 32  # weights that share a scale and a zero point in int4
FUSED_ROWS = 32  # more rows are multiplied faster with weights converted to floating point


def quantize(net: nn.Module, kind: str) -> nn.Module:
    """Quantize all linear layers and embeddings of a network in place, for inference.

    Embeddings and the output layer, which may share a weight, have 8 bits in both kinds.

    Args:
        net: A network in floating point, on the CPU.
        kind: "int8" or "int4".

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind of quantization must be one of {', '.join(KINDS)}, got {kind}")
    embeddings = [part.weight for part in net.modules() if isinstance(part, nn.Embedding)]
    size = getattr(net, "vocab_size", None)
    known: dict[int, tuple[Tensor, Tensor]] = {}  # quantized weights by the id of the original

    def shared(weight: Tensor) -> tuple[Tensor, Tensor]:
        if id(weight) not in known:
            known[id(weight)] = absmax(weight)
        return known[id(weight)]

    def convert(layer: nn.Module) -> nn.Module:
        if isinstance(layer, nn.Embedding):
            return Int8Embedding(*shared(layer.weight))
        assert isinstance(layer, nn.Linear)
        is_output = layer.out_features == size or any(layer.weight is w for w in embeddings)
        packable = layer.in_features % GROUP == 0 and layer.out_features % 16 == 0
        if kind == "int4" and packable and not is_output:
            return Int4Linear(layer)
        return Int8Linear(*shared(layer.weight), layer.bias)

    if getattr(net, "tie_embeddings", False) and getattr(net, "head", net) is None:
        tied: Any = getattr(net, "token_embedding", None) or net.embedding
        net.head = Int8Linear(*shared(tied.weight))
    replace_layers(net, (nn.Linear, nn.Embedding), convert)
    return net


def replace_layers(
    net: nn.Module, kinds: tuple[type[nn.Module], ...], convert: Callable[[Any], nn.Module]
) -> None:
    """Replace every layer of exactly these classes by what `convert` returns, in place."""
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) in kinds:
                setattr(parent, name, convert(layer))


def weight_bytes(net: nn.Module) -> int:
    """Return the memory of all parameters and buffers in bytes, shared ones once."""
    tensors = [*net.parameters(), *net.buffers()]
    for layer in net.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        for part in (state, getattr(state, "state2", None)):  # scales, and their scales
            tensors += [] if part is None else [part.absmax, part.code]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@torch.no_grad()
def absmax(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 weights (out, in) and their scales (out,) in the dtype of the weight."""
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (out,)
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """Linear layer with int8 weights.

    Args:
        weight: (out, in), int8.
        scale: (out,).
        bias: (out,) or None.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2)  # (N, in)
        if x.device.type == "cpu" and len(rows) <= FUSED_ROWS:
            # The kernel of PyTorch that torchao's compiled int8 layers run; it has no public name.
            y = torch._weight_int8pack_mm(  # noqa: SLF001
                rows.bfloat16(), self.weight, self.scale.bfloat16()
            ).to(x.dtype)
        else:
            y = F.linear(rows, self.weight.to(x.dtype)) * self.scale  # (N, out)
        y = y.unflatten(0, x.shape[:-1])  # (…, out)
        return y if self.bias is None else y + self.bias


class Int8Embedding(nn.Module):
    """Embedding with int8 weights; arguments as of Int8Linear."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, tokens: Tensor) -> Tensor:
        scale = F.embedding(tokens, self.scale[:, None])  # (…, 1)
        return F.embedding(tokens, self.weight).to(scale.dtype) * scale  # (…, D)


class Int4Linear(nn.Module):
    """Linear layer with int4 weights in groups of 32, which is multiplied in bfloat16 on the CPU.

    Args:
        linear: A layer whose width is a multiple of 32 and whose number of outputs is one of 16.
    """

    @torch.no_grad()
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        groups = linear.weight.detach().float().unflatten(1, (-1, GROUP))  # (out, in / 32, 32)
        least = groups.amin(dim=-1)  # (out, in / 32)
        scale = (groups.amax(dim=-1) - least).clamp(min=1e-12) / 15  # (out, in / 32)
        steps = ((groups - least[..., None]) / scale[..., None]).round().clamp(0, 15)
        # The kernels of torchao's prototype for int4 on CPUs; w = (q - 8) · scale + zero.
        pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 no public name
        self.register_buffer("weight", pack(steps.flatten(1).int(), 1))
        zero = least + 8 * scale  # (out, in / 32)
        pairs = torch.stack([scale, zero], dim=-1).transpose(0, 1)  # (in / 32, out, 2)
        self.register_buffer("scale_and_zero", pairs.bfloat16().contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).bfloat16().contiguous()  # (N, in)
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu  # noqa: SLF001 no public name
        scales = self.scale_and_zero.bfloat16()
        y = multiply(rows, self.weight, GROUP, scales).to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias  # (…, out)
