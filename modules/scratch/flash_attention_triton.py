"""The forward pass of flash_attention.py as a Triton kernel.

Tillet et al. 2019, "Triton: an intermediate language and compiler for tiled neural network
computations". One program of the kernel computes a tile of queries of one head: its result, maximum
and sum stay in registers while the tiles of keys and values are loaded. Runs on GPUs, and on CPUs
in Triton's interpreter (`TRITON_INTERPRET=1` before the import), which is for tests only.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 32  # queries and keys


@triton.jit
def _kernel(
    q_ptr, k_ptr, v_ptr, o_ptr, scale, T, S,
    K: tl.constexpr, TILE: tl.constexpr, IS_CAUSAL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)  # of B · H
    t = tl.program_id(0) * TILE + tl.arange(0, TILE)  # (t,)
    channels = tl.arange(0, K)  # (K,)
    queries = (head * T + t[:, None]) * K + channels[None, :]  # (t, K)
    q = tl.load(q_ptr + queries, mask=t[:, None] < T, other=0.0)
    maximum = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    output = tl.zeros((TILE, K), tl.float32)
    end = S
    if IS_CAUSAL:
        end = tl.minimum(S, (tl.program_id(0) + 1) * TILE)
    for start in range(0, end, TILE):
        s = start + tl.arange(0, TILE)  # (s,)
        keys = (head * S + s[:, None]) * K + channels[None, :]  # (s, K)
        k = tl.load(k_ptr + keys, mask=s[:, None] < S, other=0.0)
        v = tl.load(v_ptr + keys, mask=s[:, None] < S, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale  # (t, s)
        visible = s[None, :] < S
        if IS_CAUSAL:
            visible = visible & (s[None, :] <= t[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        new = tl.maximum(maximum, tl.max(scores, 1))  # (t,)
        weights = tl.exp(scores - new[:, None])  # (t, s)
        shrink = tl.exp(maximum - new)  # (t,)
        total = shrink * total + tl.sum(weights, 1)
        output = shrink[:, None] * output
        output += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        maximum = new
    result = output / total[:, None]
    tl.store(o_ptr + queries, result.to(o_ptr.dtype.element_ty), mask=t[:, None] < T)


def flash_attention_triton(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Return softmax(q kᵀ / √K) v, (B, H, T, K), without a backward pass.

    Args:
        q: Queries (B, H, T, K); K must be a power of two and at least 16.
        k: Keys (B, H, S, K).
        v: Values (B, H, S, K).
        is_causal: Whether query t attends to the keys 0 … t only.

    Raises:
        ValueError: If K is another number.
    """
    B, H, T, K = q.shape
    if K < 16 or K & (K - 1):
        raise ValueError(f"the width of a head must be a power of two of at least 16, got {K}")
    q, k, v = (part.contiguous() for part in (q, k, v))
    output = torch.empty_like(q)
    grid = (triton.cdiv(T, TILE), B * H)
    _kernel[grid](q, k, v, output, 1 / math.sqrt(K), T, k.shape[2], K, TILE, is_causal)
    return output
