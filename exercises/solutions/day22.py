"""Solutions of day 22."""

import torch
from torch import Tensor


def causal_mask(queries: int, keys: int) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5  # (..., Tq, Tk)
    if mask is None:
        return scores.softmax(dim=-1) @ value
    some = mask.any(dim=-1, keepdim=True)
    scores = scores.masked_fill(~mask & some, float("-inf"))
    return (scores.softmax(dim=-1) * some) @ value


def cross_attention(
    x: Tensor, memory: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], num_heads: int
) -> Tensor:
    def heads(y: Tensor) -> Tensor:
        return y.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, H, T, D/H)

    query, key, value = (
        heads(x @ weights[0]),
        heads(memory @ weights[1]),
        heads(memory @ weights[2]),
    )
    return attention(query, key, value).transpose(1, 2).flatten(2) @ weights[3]


def teacher_forcing(targets: Tensor, bos: int, pad: int) -> tuple[Tensor, Tensor]:
    first = targets.new_full((len(targets), 1), bos)
    return torch.cat([first, targets[:, :-1]], dim=1), targets != pad
