"""flash_attention.py as Triton kernels, forward and backward.

Tillet et al. 2019, "Triton: an intermediate language and compiler for tiled neural network
computations". One program of the forward kernel computes a tile of queries of one head: its result,
maximum and sum stay in registers while the tiles of keys and values are loaded. In the backward
pass one kernel computes the gradients of a tile of queries, another those of a tile of keys and
values, so that no two programs add to the same memory. Runs on GPUs, and on CPUs in Triton's
interpreter (`TRITON_INTERPRET=1` before the import), which is for tests only.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 32  # queries and keys


@triton.jit
def _load(ptr, head, rows, length, K: tl.constexpr):  # fmt: skip
    """Return rows of one head, (rows, K), with zeros beyond its length, and their addresses."""
    places = (head * length + rows[:, None]) * K + tl.arange(0, K)[None, :]
    return tl.load(ptr + places, mask=rows[:, None] < length, other=0.0), places


@triton.jit
def _scores(q, k, t, s, S, scale, IS_CAUSAL: tl.constexpr):  # fmt: skip
    """Return q kᵀ / √K, (t, s), with -inf where it is masked."""
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    visible = s[None, :] < S
    if IS_CAUSAL:
        visible = visible & (s[None, :] <= t[:, None])
    return tl.where(visible, scores, float("-inf"))


@triton.jit
def _forward(
    q_ptr, k_ptr, v_ptr, o_ptr, logsumexp_ptr, scale, T, S,
    K: tl.constexpr, TILE: tl.constexpr, IS_CAUSAL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)  # of B · H
    t = tl.program_id(0) * TILE + tl.arange(0, TILE)  # (t,)
    q, places = _load(q_ptr, head, t, T, K)
    maximum = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    output = tl.zeros((TILE, K), tl.float32)
    end = S
    if IS_CAUSAL:
        end = tl.minimum(S, (tl.program_id(0) + 1) * TILE)
    for start in range(0, end, TILE):
        s = start + tl.arange(0, TILE)  # (s,)
        k, _ = _load(k_ptr, head, s, S, K)
        v, _ = _load(v_ptr, head, s, S, K)
        scores = _scores(q, k, t, s, S, scale, IS_CAUSAL)  # (t, s)
        new = tl.maximum(maximum, tl.max(scores, 1))  # (t,)
        weights = tl.exp(scores - new[:, None])  # (t, s)
        shrink = tl.exp(maximum - new)  # (t,)
        total = shrink * total + tl.sum(weights, 1)
        output = shrink[:, None] * output
        output += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        maximum = new
    result = output / total[:, None]
    tl.store(o_ptr + places, result.to(o_ptr.dtype.element_ty), mask=t[:, None] < T)
    tl.store(logsumexp_ptr + head * T + t, maximum + tl.log(total), mask=t < T)


@triton.jit
def _backward_q(
    q_ptr, k_ptr, v_ptr, do_ptr, logsumexp_ptr, d_ptr, dq_ptr, scale, T, S,
    K: tl.constexpr, TILE: tl.constexpr, IS_CAUSAL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    t = tl.program_id(0) * TILE + tl.arange(0, TILE)  # (t,)
    q, places = _load(q_ptr, head, t, T, K)
    do, _ = _load(do_ptr, head, t, T, K)
    logsumexp = tl.load(logsumexp_ptr + head * T + t, mask=t < T, other=0.0)
    d = tl.load(d_ptr + head * T + t, mask=t < T, other=0.0)
    dq = tl.zeros((TILE, K), tl.float32)
    end = S
    if IS_CAUSAL:
        end = tl.minimum(S, (tl.program_id(0) + 1) * TILE)
    for start in range(0, end, TILE):
        s = start + tl.arange(0, TILE)  # (s,)
        k, _ = _load(k_ptr, head, s, S, K)
        v, _ = _load(v_ptr, head, s, S, K)
        p = tl.exp(_scores(q, k, t, s, S, scale, IS_CAUSAL) - logsumexp[:, None])  # (t, s)
        ds = p * (tl.dot(do, tl.trans(v), input_precision="ieee") - d[:, None])  # (t, s)
        dq += scale * tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    tl.store(dq_ptr + places, dq.to(dq_ptr.dtype.element_ty), mask=t[:, None] < T)


@triton.jit
def _backward_kv(
    q_ptr, k_ptr, v_ptr, do_ptr, logsumexp_ptr, d_ptr, dk_ptr, dv_ptr, scale, T, S,
    K: tl.constexpr, TILE: tl.constexpr, IS_CAUSAL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    s = tl.program_id(0) * TILE + tl.arange(0, TILE)  # (s,)
    k, places = _load(k_ptr, head, s, S, K)
    v, _ = _load(v_ptr, head, s, S, K)
    dk = tl.zeros((TILE, K), tl.float32)
    dv = tl.zeros((TILE, K), tl.float32)
    first = 0
    if IS_CAUSAL:
        first = tl.program_id(0) * TILE
    for start in range(first, T, TILE):
        t = start + tl.arange(0, TILE)  # (t,)
        q, _ = _load(q_ptr, head, t, T, K)
        do, _ = _load(do_ptr, head, t, T, K)
        logsumexp = tl.load(logsumexp_ptr + head * T + t, mask=t < T, other=0.0)
        d = tl.load(d_ptr + head * T + t, mask=t < T, other=0.0)
        p = tl.exp(_scores(q, k, t, s, S, scale, IS_CAUSAL) - logsumexp[:, None])  # (t, s)
        dv += tl.dot(tl.trans(p).to(do.dtype), do, input_precision="ieee")
        ds = p * (tl.dot(do, tl.trans(v), input_precision="ieee") - d[:, None])  # (t, s)
        dk += scale * tl.dot(tl.trans(ds).to(q.dtype), q, input_precision="ieee")
    tl.store(dk_ptr + places, dk.to(dk_ptr.dtype.element_ty), mask=s[:, None] < S)
    tl.store(dv_ptr + places, dv.to(dv_ptr.dtype.element_ty), mask=s[:, None] < S)


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> Tensor:
        B, H, T, K = q.shape
        q, k, v = (part.contiguous() for part in (q, k, v))
        output = torch.empty_like(q)
        logsumexp = q.new_empty(B, H, T, dtype=torch.float32)
        arguments = (1 / math.sqrt(K), T, k.shape[2], K, TILE, is_causal)
        _forward[triton.cdiv(T, TILE), B * H](q, k, v, output, logsumexp, *arguments)
        ctx.save_for_backward(q, k, v, output, logsumexp)
        ctx.arguments = arguments
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        q, k, v, output, logsumexp = ctx.saved_tensors
        (do,) = (gradient.contiguous() for gradient in gradients)  # (B, H, T, K)
        D = (output.float() * do.float()).sum(dim=-1)  # (B, H, T)
        dq, dk, dv = (torch.empty_like(part) for part in (q, k, v))
        inputs = (q, k, v, do, logsumexp, D)
        B, H, T, _ = q.shape
        _backward_q[triton.cdiv(T, TILE), B * H](*inputs, dq, *ctx.arguments)
        _backward_kv[triton.cdiv(k.shape[2], TILE), B * H](*inputs, dk, dv, *ctx.arguments)
        return dq, dk, dv, None


def flash_attention_triton(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Return softmax(q kᵀ / √K) v, (B, H, T, K).

    Args:
        q: Queries (B, H, T, K); K must be a power of two and at least 16.
        k: Keys (B, H, S, K).
        v: Values (B, H, S, K).
        is_causal: Whether query t attends to the keys 0 … t only.

    Raises:
        ValueError: If K is another number.
    """
    K = q.shape[-1]
    if K < 16 or K & (K - 1):
        raise ValueError(f"the width of a head must be a power of two of at least 16, got {K}")
    result: Tensor = _FlashAttention.apply(q, k, v, is_causal)
    return result
