"""Solutions of day 44."""

import math
from collections import Counter

import numpy as np


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 10
) -> float:
    index = np.maximum(np.ceil(confidence * bins).astype(int) - 1, 0)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def filter_threshold(scores: np.ndarray, unsafe: np.ndarray, max_false_positives: float) -> float:
    safe = scores[~unsafe]
    for threshold in np.unique(scores):  # ascending
        if (safe >= threshold).mean() <= max_false_positives:
            return float(threshold)
    return float("inf")


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    rate = successes / trials
    center = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return (center - half) / scale, (center + half) / scale


def pass_at_k(samples: int, correct: int, k: int) -> float:
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def cohen_kappa(first: list[str], second: list[str]) -> float:
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    counts, others = Counter(first), Counter(second)
    chance = sum(counts[label] * others[label] for label in counts) / n**2
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)
