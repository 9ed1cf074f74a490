"""Rotary position embeddings (Su et al. 2021, "RoFormer")."""

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]  # cos and sin, each (T, K/2) or (B, 1, T, K/2)


def rope_cache(positions: Tensor, size: int, theta: float) -> Rope:
    """Return cos and sin of the rotation angles.

    Args:
        positions: (T,), or (B, T) if they differ between the rows.
        size: K, width of a head.
        theta: Base of the frequencies.
    """
    # angle(t, i) = t · theta^(-2i / K)
    pairs = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)  # (K/2,)
    frequencies = theta ** (-pairs / size)  # (K/2,)
    angles = positions[..., None] * frequencies  # (T, K/2) or (B, T, K/2)
    if positions.dim() == 2:
        angles = angles[:, None]  # (B, 1, T, K/2)
    return angles.cos(), angles.sin()


def apply_rotary_emb(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the channel pairs (i, i + K/2), so that q · k depends on relative positions only."""
    cos, sin = rope
    a, b = x.float().chunk(2, dim=-1)  # (B, H, T, K/2), (B, H, T, K/2)
    # (a cos - b sin, a sin + b cos)
    rotated = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(a * sin, b, cos)
    return torch.cat(rotated, dim=-1).to(x.dtype)  # (B, H, T, K)
