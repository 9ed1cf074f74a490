"""Day 27: minGPT, line by line: fused projections, initialization, cropped contexts, loading."""

import torch
from torch import Tensor, nn


def fused_projection(
    x: Tensor, weight: Tensor, bias: Tensor, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values from one matrix product, split into heads.

    The weight of minGPT's c_attn holds the rows of the queries, then of the keys, then of the
    values.

    Args:
        x: Inputs, (B, T, D).
        weight: Weight of the linear layer, (3 D, D).
        bias: Its bias, (3 D,).
        num_heads: Number of heads H.

    Returns:
        Queries, keys and values, (B, H, T, D/H) each.

    Source: github.com/karpathy/minGPT, mingpt/model.py, CausalSelfAttention.
    """
    raise NotImplementedError


def initialize(net: nn.Module, layers: int, generator: torch.Generator) -> None:
    """Initialize a GPT like minGPT.

    Weights of linear layers and embeddings are normal with standard deviation 0.02; those whose
    name ends in "c_proj.weight" have 0.02 / √(2 · layers), as each block adds two outputs to the
    residual stream. Biases are 0, weights of layer norms 1.

    Args:
        net: The network; changed in place.
        layers: Number of blocks.
        generator: Source of random numbers.

    Source: Radford et al. 2019, section 2.3; minGPT's `_init_weights`.
    """
    raise NotImplementedError


@torch.no_grad()
def generate(net: nn.Module, tokens: Tensor, new_tokens: int, context: int) -> Tensor:
    """Return tokens and their greedy continuation.

    The network takes at most `context` tokens, so that each step passes the last `context` ones.

    Args:
        net: Returns logits (B, T, V) of tokens (B, T), T <= context.
        tokens: Prompts, (B, T).
        new_tokens: Number of new tokens.
        context: Number of positions of the network.

    Returns:
        Tensor of shape (B, T + new_tokens).

    Source: minGPT's `GPT.generate`.
    """
    raise NotImplementedError


def load_gpt2(net: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy OpenAI's GPT-2 weights into a network with the same names.

    OpenAI's attention and feed-forward layers are stored transposed: the weights of c_attn, c_proj
    and c_fc, (in, out) instead of (out, in). Entries whose name ends in ".attn.bias" are masks and
    are left out.

    Args:
        net: The network; changed in place.
        weights: OpenAI's weights.

    Raises:
        ValueError: If a parameter is missing, or a shape differs; the message names the parameter.

    Source: minGPT's `GPT.from_pretrained`.
    """
    raise NotImplementedError
