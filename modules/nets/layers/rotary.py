"""Rotary position embeddings (Su et al. 2021, "RoFormer")."""

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]  # cos and sin, each (T, K/2)


def rope_cache(start: int, length: int, size: int, device: torch.device, theta: float) -> Rope:
    """Return cos and sin of the rotation angles at positions start … start + length - 1."""
    # angle(t, i) = t · theta^(-2i / K)
    pairs = torch.arange(0, size, 2, dtype=torch.float32, device=device)  # (K/2,)
    frequencies = theta ** (-pairs / size)  # (K/2,)
    angles = torch.arange(start, start + length, device=device)[:, None] * frequencies  # (T, K/2)
    return angles.cos(), angles.sin()  # (T, K/2), (T, K/2)


def apply_rotary_emb(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the channel pairs (i, i + K/2), so that q · k depends on relative positions only."""
    cos, sin = rope  # (T, K/2), (T, K/2)
    a, b = x.float().chunk(2, dim=-1)  # (B, H, T, K/2), (B, H, T, K/2)
    # (a cos - b sin, a sin + b cos)
    rotated = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(a * sin, b, cos)
    return torch.cat(rotated, dim=-1).to(x.dtype)  # (B, H, T, K)
