"""Rotary position embeddings (Su et al. 2021, "RoFormer")."""

import math
from typing import Any

import torch
from torch import Tensor

Rope = tuple[Tensor, Tensor]  # cos and sin, each (T, K/2) or (B, 1, T, K/2)


ORIGINAL = "original_max_position_embeddings"  # the context of the first training
SCALINGS = {  # rope_type → required arguments
    "linear": ("factor",),
    "ntk": ("factor",),
    "yarn": ("factor", ORIGINAL),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL),
}
YARN_OPTIONS = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "attention_factor": None}


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


def rotary_frequencies(size: int, theta: float, scaling: dict[str, Any] | None = None) -> Tensor:
    """Return the rotary frequencies (K/2,), for `scaling` changed for a longer context.

    linear: All are divided by `factor` (Chen et al. 2023, position interpolation).
    ntk: theta grows, so that the lowest frequency is divided by `factor` and the highest stays
    ("NTK-aware", Peng et al. 2023, section 3.1).
    yarn: Frequencies of less than beta_slow rotations within the original context are divided by
    `factor`, those of more than beta_fast stay, and between them the two are interpolated by their
    number (Peng et al. 2023, section 3.2).
    llama3: The same with interpolation by the wavelength (Llama team 2024).

    Args:
        size: K, width of a head.
        theta: Base of the frequencies.
        scaling: `rope_type` and its arguments, as in a config.json.
    """
    # angle(t, i) = t · theta^(-2i / K)
    kind, factor = (None, 1.0) if scaling is None else (scaling["rope_type"], scaling["factor"])
    if kind == "ntk":
        theta *= factor ** (size / (size - 2))
    frequencies = theta ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)  # (K/2,)
    if scaling is None or kind == "ntk":
        return frequencies
    if kind == "linear":
        return frequencies / factor
    if kind == "yarn":
        kept = _yarn_ramp(size, theta, YARN_OPTIONS | scaling)  # (K/2,)
    else:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        rotations = scaling[ORIGINAL] * frequencies / (2 * math.pi)  # (K/2,)
        kept = ((rotations - low) / (high - low)).clamp(0, 1)  # (K/2,)
    return (1 - kept) * frequencies / factor + kept * frequencies


def _yarn_ramp(size: int, theta: float, scaling: dict[str, Any]) -> Tensor:
    """Return 1 where a frequency stays and 0 where it is divided, (K/2,)."""

    def index_of(rotations: float) -> float:  # of the frequency with so many rotations
        return (
            size * math.log(scaling[ORIGINAL] / (rotations * 2 * math.pi)) / (2 * math.log(theta))
        )

    first, last = index_of(scaling["beta_fast"]), index_of(scaling["beta_slow"])
    if scaling["truncate"]:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    last += 0.001 if first == last else 0
    return 1 - ((torch.arange(size // 2, dtype=torch.float32) - first) / (last - first)).clamp(0, 1)


def attention_factor(scaling: dict[str, Any] | None) -> float:
    """Return the factor of queries and keys: with yarn 0.1 ln(factor) + 1, else 1."""
    if scaling is None or scaling["rope_type"] != "yarn":
        return 1.0
    given = scaling.get("attention_factor")
    return 0.1 * math.log(max(scaling["factor"], 1.0)) + 1 if given is None else float(given)


def rope_cache(
    positions: Tensor, size: int, theta: float, scaling: dict[str, Any] | None = None
) -> Rope:
    """Return cos and sin of the rotation angles.

    Args:
        positions: (T,), or (B, T) if they differ between the rows.
        size: K, width of a head.
        theta: Base of the frequencies.
        scaling: See `rotary_frequencies`.
    """
    frequencies = rotary_frequencies(size, theta, scaling).to(positions.device)  # (K/2,)
    angles = positions[..., None] * frequencies  # (T, K/2) or (B, T, K/2)
    if positions.dim() == 2:
        angles = angles[:, None]  # (B, 1, T, K/2)
    factor = attention_factor(scaling)
    return angles.cos() * factor, angles.sin() * factor


def apply_rotary_emb(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the channel pairs (i, i + K/2), so that q · k depends on relative positions only."""
    cos, sin = rope
    a, b = x.float().chunk(2, dim=-1)  # (B, H, T, K/2), (B, H, T, K/2)
    # (a cos - b sin, a sin + b cos)
    rotated = torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(a * sin, b, cos)
    return torch.cat(rotated, dim=-1).to(x.dtype)  # (B, H, T, K)
