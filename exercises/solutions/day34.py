"""Solutions of day 34."""

import numpy as np


def quantize_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1.0)
    return np.clip(np.round(weight / scale), -127, 127).astype(np.int8), scale


def quantize_groups(weight: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grouped = weight.reshape(len(weight), -1, group)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    scale = np.where(high > low, (high - low) / 15, 1.0)
    values = np.round((grouped - low[:, :, None]) / scale[:, :, None])
    return np.clip(values, 0, 15).astype(np.uint8).reshape(weight.shape), scale, low


def rotate(x: np.ndarray, positions: np.ndarray, base: float = 10000.0) -> np.ndarray:
    half = x.shape[1] // 2
    angles = positions[:, None] * base ** (-np.arange(half) / half)  # (T, D / 2)
    first, second = x[:, :half], x[:, half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def training_bytes(parameters: int, devices: int, stage: int) -> float:
    weights = 2 / (devices if stage >= 3 else 1)
    gradients = 2 / (devices if stage >= 2 else 1)
    states = 12 / (devices if stage >= 1 else 1)
    return parameters * (weights + gradients + states)
