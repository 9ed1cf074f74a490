"""Solutions of day 30."""

import numpy as np


def cache_bytes(
    layers: int, kv_heads: int, head_width: int, context: int, batch_size: int, bytes_each: int = 2
) -> int:
    return 2 * layers * kv_heads * head_width * context * batch_size * bytes_each


def fit_power_law(sizes: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    slope, intercept = np.polyfit(np.log(sizes), np.log(losses), 1)
    return float(np.exp(intercept)), float(-slope)


def scored_windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    windows = []
    scored = 0
    for begin in range(0, length, stride):
        end = min(begin + context, length)
        windows.append((begin, end, scored))
        scored = end
        if end == length:
            break
    return windows
