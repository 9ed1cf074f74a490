"""FlashAttention on one screen: exact attention that never holds the matrix of scores.

Dao et al. 2022, "FlashAttention: fast and memory-efficient exact attention with IO-awareness", and
Dao 2023, "FlashAttention-2". softmax(q kᵀ / √K) v has T · S scores per head, which are written to
memory and read again several times. Here they are computed for a tile of queries and a tile of keys
at a time. The softmax of a row needs its maximum and its sum over all keys; both are kept up to
date while the tiles of keys are processed ("online softmax", Milakov & Gimelshein 2018):

    m' = max(m, max_j s_j)          l' = e^(m - m') l + Σ_j e^(s_j - m')
    o' = e^(m - m') o + Σ_j e^(s_j - m') v_j          result o / l

Saved for the backward pass are the result and one number per query, L = m + ln l, with which each
tile of weights p = e^(s - L) is computed again:

    D = Σ o ⊙ do      dv = pᵀ do      ds = p ⊙ (do vᵀ - D)      dq = ds k / √K      dk = dsᵀ q / √K

The same kernel in Triton: flash_attention_triton.py. The networks use PyTorch's,
`F.scaled_dot_product_attention`; tests compare values and gradients.
"""

import math
from typing import Any

import torch
from torch import Tensor

TILE = 64  # queries and keys


def flash_attention(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Return softmax(q kᵀ / √K) v, (B, H, T, K).

    Args:
        q: Queries (B, H, T, K).
        k: Keys (B, H, S, K).
        v: Values (B, H, S, K).
        is_causal: Whether query t attends to the keys 0 … t only.
    """
    result: Tensor = _FlashAttention.apply(q, k, v, is_causal)
    return result


def tile_of_scores(
    q: Tensor, k: Tensor, first_query: int, first_key: int, is_causal: bool
) -> Tensor:
    """Return q kᵀ / √K of a tile of queries and a tile of keys, with -inf where it is masked."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (B, H, t, s)
    if is_causal:
        t = torch.arange(q.shape[2], device=q.device)[:, None] + first_query  # (t, 1)
        s = torch.arange(k.shape[2], device=q.device) + first_key  # (s,)
        scores = scores.masked_fill(s > t, -math.inf)
    return scores


def tiles(queries: int, keys: int, is_causal: bool) -> list[tuple[int, int]]:
    """Return the first query and the first key of each tile that is not masked completely."""
    return [
        (t, s)
        for t in range(0, queries, TILE)
        for s in range(0, keys, TILE)
        if not is_causal or s < t + TILE
    ]


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        T, S = q.shape[2], k.shape[2]
        output = torch.zeros_like(q)  # (B, H, T, K)
        maximum = q.new_full((*q.shape[:3], 1), -math.inf)  # m, (B, H, T, 1)
        total = torch.zeros_like(maximum)  # l, (B, H, T, 1)
        for t, s in tiles(T, S, is_causal):
            rows, columns = slice(t, t + TILE), slice(s, s + TILE)
            scores = tile_of_scores(q[:, :, rows], k[:, :, columns], t, s, is_causal)
            m, l, o = maximum[:, :, rows], total[:, :, rows], output[:, :, rows]  # noqa: E741
            new = torch.maximum(m, scores.amax(dim=-1, keepdim=True))  # (B, H, t, 1)
            weights, shrink = (scores - new).exp(), (m - new).exp()  # (B, H, t, s), (B, H, t, 1)
            total[:, :, rows] = shrink * l + weights.sum(dim=-1, keepdim=True)
            output[:, :, rows] = shrink * o + weights @ v[:, :, columns]
            maximum[:, :, rows] = new
        output /= total
        ctx.save_for_backward(q, k, v, output, maximum + total.log())
        ctx.is_causal = is_causal
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        q, k, v, output, logsumexp = ctx.saved_tensors
        (do,) = gradients  # (B, H, T, K)
        D = (output * do).sum(dim=-1, keepdim=True)  # (B, H, T, 1)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        scale = 1 / math.sqrt(q.shape[-1])
        for t, s in tiles(q.shape[2], k.shape[2], ctx.is_causal):
            rows, columns = slice(t, t + TILE), slice(s, s + TILE)
            scores = tile_of_scores(q[:, :, rows], k[:, :, columns], t, s, ctx.is_causal)
            p = (scores - logsumexp[:, :, rows]).exp()  # (B, H, t, s)
            dv[:, :, columns] += p.mT @ do[:, :, rows]
            ds = p * (do[:, :, rows] @ v[:, :, columns].mT - D[:, :, rows])  # (B, H, t, s)
            dq[:, :, rows] += scale * ds @ k[:, :, columns]
            dk[:, :, columns] += scale * ds.mT @ q[:, :, rows]
        return dq, dk, dv, None
