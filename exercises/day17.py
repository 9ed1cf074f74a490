"""Day 17: self-attention, heads, costs and the learning rate of the first Transformer."""

import torch
from torch import Tensor


def self_attention(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """Return the self-attention of one head.

        softmax(Q Kᵀ / √D) V,  Q = x W_q, K = x W_k, V = x W_v

    Show that independent entries of Q and K with variance 1 give products of variance D, which is
    why they are divided by √D.

    Args:
        x: Inputs, (B, T, C).
        w_q: Weight of the queries, (C, D).
        w_k: Weight of the keys, (C, D).
        w_v: Weight of the values, (C, E).

    Returns:
        Tensor of shape (B, T, E).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1.
    """
    raise NotImplementedError


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Return the heads of queries, keys or values: head h has the columns h·D/H to (h+1)·D/H.

    Args:
        x: Tensor of shape (B, T, D).
        num_heads: Number of heads H.

    Returns:
        Tensor of shape (B, H, T, D/H).

    Raises:
        ValueError: If H does not divide D.
    """
    raise NotImplementedError


def attention_costs(length: int, width: int, num_heads: int) -> tuple[int, int, int]:
    """Return what self-attention of one sequence costs: (projections, products, scores).

    Derive when the products cost more than the projections.

    Args:
        length: Positions T.
        width: Width D of inputs, queries, keys, values and outputs.
        num_heads: Number of heads H.

    Returns:
        Multiply-adds of the four projections (Q, K, V and output), multiply-adds of the products Q
        Kᵀ and weights · V of all heads, and numbers in the score matrices of all heads.
    """
    raise NotImplementedError


def noam_learning_rate(step: int, width: int, warmup: int) -> float:
    """Return the learning rate of the original Transformer.

        width^-0.5 · min(step^-0.5, step · warmup^-1.5)

    Step 0 counts as step 1.

    Args:
        step: Step, from 0.
        width: Width of the model.
        warmup: Steps of linear growth.

    Source: Vaswani et al. 2017, equation 3.
    """
    raise NotImplementedError
