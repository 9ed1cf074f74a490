"""Rotary position embeddings (Su et al. 2021, "RoFormer")."""

import math
from typing import Any

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]  # cos and sin, each (T, K/2) or (B, 1, T, K/2)


LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
SCALINGS = {"linear": ("factor",), "llama3": LLAMA3}  # rope_type → arguments


def check_rope_scaling(scaling: dict[str, Any] | None) -> None:
    """Check the scaling of rotary frequencies.

    Raises:
        ValueError: If its type is unknown, or an argument is missing.
    """
    if scaling is None:
        return
    kind = scaling.get("rope_type")
    if kind not in SCALINGS:
        raise ValueError(f"rope_type must be one of {', '.join(SCALINGS)}, got {kind!r}")
    if missing := [name for name in SCALINGS[kind] if name not in scaling]:
        raise ValueError(f"rope_scaling of type {kind} needs {', '.join(missing)}")


def scale_frequencies(frequencies: Tensor, scaling: dict[str, Any]) -> Tensor:
    """Return the rotary frequencies (K/2,) for a context longer than that of the first training.

    linear: All are divided by `factor` (Chen et al. 2023, position interpolation).
    llama3: Those of wavelengths longer than the original context / low_freq_factor are; those of
    wavelengths shorter than it / high_freq_factor stay; between them the two are interpolated
    (Llama team 2024).
    """
    factor = scaling["factor"]
    if scaling["rope_type"] == "linear":
        return frequencies / factor
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # (K/2,)
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # (K/2,)
    return (1 - kept) * frequencies / factor + kept * frequencies


def rope_cache(
    positions: Tensor, size: int, theta: float, scaling: dict[str, Any] | None = None
) -> Rope:
    """Return cos and sin of the rotation angles.

    Args:
        positions: (T,), or (B, T) if they differ between the rows.
        size: K, width of a head.
        theta: Base of the frequencies.
        scaling: See `scale_frequencies`.
    """
    # angle(t, i) = t · theta^(-2i / K)
    pairs = torch.arange(0, size, 2, dtype=torch.float32, device=positions.device)  # (K/2,)
    frequencies = theta ** (-pairs / size)  # (K/2,)
    if scaling is not None:
        frequencies = scale_frequencies(frequencies, scaling)
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
