"""Day 34: large language models: quantization, rotary positions, memory of sharded training."""

import numpy as np


def quantize_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 8-bit integers and scales of a matrix, symmetric and one scale per row.

        q = round(w / s), clipped to [-127, 127],  s = max |row| / 127

    A row of zeros has scale 1. Show that the error of each weight is at most s / 2.

    Args:
        weight: float array (O, I).

    Returns:
        int8 array (O, I) and scales (O, 1).

    Source: Dettmers et al. 2022 (arXiv:2208.07339), section 2.1.
    """
    raise NotImplementedError


def quantize_groups(weight: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return 4-bit integers, scales and minima of groups of adjacent weights of a row.

        s = (max - min) / 15,  q = round((w - min) / s) in [0, 15],  w ≈ min + s · q

    A constant group has scale 1.

    Args:
        weight: float array (O, I).
        group: Weights of a group; divides I.

    Returns:
        uint8 array (O, I) of values 0 to 15, scales and minima (O, I / group) each.
    """
    raise NotImplementedError


def rotate(x: np.ndarray, positions: np.ndarray, base: float = 10000.0) -> np.ndarray:
    """Return queries or keys with rotary positions, in the form of Llama.

    The pair (x_i, x_i+D/2) is rotated by the angle position · base^(-2i / D), for i < D/2. Show
    that the product of a rotated query and a rotated key depends on the difference of positions
    only.

    Args:
        x: Array of shape (T, D), D even.
        positions: Integers (T,).
        base: Base of the frequencies.

    Source: Su et al. 2021 (arXiv:2104.09864); transformers' `rotate_half`.
    """
    raise NotImplementedError


def training_bytes(parameters: int, devices: int, stage: int) -> float:
    """Return the memory per device for training with Adam in mixed precision, without activations.

    Per parameter: 2 bytes of weight, 2 of gradient, 12 of optimizer state (float32 weight, mean and
    square). Stage 0 holds everything on each device; stage 1 shards the optimizer state, stage 2
    also gradients, stage 3 also weights.

    Args:
        parameters: Number of parameters.
        devices: Number of devices.
        stage: 0 to 3.

    Source: Rajbhandari et al. 2020 (arXiv:1910.02054), figure 1.
    """
    raise NotImplementedError
