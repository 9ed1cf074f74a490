"""Solutions of day 50."""

import math

import numpy as np


def holm(p_values: list[float]) -> list[float]:
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def paired_interval(
    first: np.ndarray, second: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    differences = first.astype(float) - second
    chosen = rng.integers(len(differences), size=(resamples, len(differences)))
    low, high = np.quantile(differences[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def format_result(values: list[float]) -> str:
    mean = float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if deviation == 0:
        return f"{mean:.4g}"
    decimals = max(0, -math.floor(math.log10(deviation)))
    if round(deviation, decimals) >= 10 ** (1 - decimals):  # 0.0097 rounds to 0.01
        decimals = max(0, decimals - 1)
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"
