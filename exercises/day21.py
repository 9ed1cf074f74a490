"""Day 21: the Transformer encoder: layer norm, sinusoidal positions and a block."""

import numpy as np
import torch
from torch import Tensor, nn


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Return the layer normalization over the last axis.

        y = gamma · (x - mean) / √(var + eps) + beta,  var divided by D

    Args:
        x: Array of shape (..., D).
        gamma: Scales of shape (D,).
        beta: Shifts of shape (D,).
        eps: Added to the variance.

    Source: Ba, Kiros & Hinton 2016 (arXiv:1607.06450).
    """
    raise NotImplementedError


def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients (dx, dgamma, dbeta) of layer normalization.

    Derive dx for one row; compare with batch norm (day 3): which means are over which axis, and
    where does gamma stand?

    Args:
        dy: Gradient of the loss with respect to y, (N, D).
        x: Input of the forward pass, (N, D).
        gamma: Scales of shape (D,).
        eps: Added to the variance.
    """
    raise NotImplementedError


def sinusoidal_positions(length: int, width: int) -> np.ndarray:
    """Return the position encoding of the Transformer.

        P[t, 2i] = sin(t / 10000^(2i / D)),  P[t, 2i + 1] = cos(t / 10000^(2i / D))

    Show that P[t + k] is a rotation of P[t] in each pair of columns, by an angle that does not
    depend on t.

    Args:
        length: Positions T.
        width: Even width D.

    Returns:
        Array of shape (T, D).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.
    """
    raise NotImplementedError


class EncoderBlock(nn.Module):
    """A block with normalization before each part ("pre-norm").

        x ← x + attention(norm1(x)),  x ← x + linear2(gelu(linear1(norm2(x))))

    Use the attributes norm1, attention (nn.MultiheadAttention with batch_first), norm2, linear1 (D
    to 4 D) and linear2 (4 D to D), without dropout.

    Args:
        width: Width D.
        num_heads: Number of heads.

    Source: Xiong et al. 2020 (arXiv:2002.04745), figure 1b.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, D) of inputs (B, T, D); mask (B, T) is True for words."""
        raise NotImplementedError
