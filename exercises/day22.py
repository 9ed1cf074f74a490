"""Day 22: causal masks, masked attention and cross-attention."""

import torch
from torch import Tensor


def causal_mask(queries: int, keys: int) -> Tensor:
    """Return which keys each query may attend to.

    The queries are the last positions of the keys: with a cache of earlier positions there are more
    keys than queries. A position attends to itself and to all earlier ones.

    Args:
        queries: Number of queries Tq.
        keys: Number of keys Tk >= Tq.

    Returns:
        Boolean tensor of shape (Tq, Tk), True where attention is allowed.
    """
    raise NotImplementedError


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the scaled dot-product attention.

        softmax(Q Kᵀ / √D) V

    Masked scores are -inf before the softmax. A query that may not attend to any key returns zeros,
    and its gradients are finite.

    Args:
        query: Tensor of shape (..., Tq, D).
        key: Tensor of shape (..., Tk, D).
        value: Tensor of shape (..., Tk, E).
        mask: Boolean tensor, broadcast to (..., Tq, Tk); True where attention is allowed.

    Returns:
        Tensor of shape (..., Tq, E).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1.
    """
    raise NotImplementedError


def cross_attention(
    x: Tensor, memory: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], num_heads: int
) -> Tensor:
    """Return the multi-head attention from decoder positions to the encoder's outputs.

    Queries are x · W_q, keys and values memory · W_k and memory · W_v. Head h uses the columns
    h·D/H to (h+1)·D/H of each. The concatenated heads are multiplied by W_o.

    Args:
        x: Decoder states, (B, T, D).
        memory: Encoder outputs, (B, S, D).
        weights: W_q, W_k, W_v, W_o, each (D, D), without bias.
        num_heads: Number of heads H, a divisor of D.

    Returns:
        Tensor of shape (B, T, D).

    Source: Vaswani et al. 2017, section 3.2.2.
    """
    raise NotImplementedError


def teacher_forcing(targets: Tensor, bos: int, pad: int) -> tuple[Tensor, Tensor]:
    """Return the decoder's inputs, and which of its outputs the loss counts.

    At position t the decoder predicts target t from the targets before t, so its inputs are the
    targets shifted right by one, with `bos` first.

    Args:
        targets: Tokens of shape (B, T), padded at the end.
        bos: Token that begins a sequence.
        pad: Token of padding.

    Returns:
        Inputs (B, T) and a boolean tensor (B, T), True where the target is not padding.

    Source: Williams & Zipser 1989.
    """
    raise NotImplementedError
