"""Solutions of day 8."""

import math
from collections.abc import Callable

import numpy as np


def log_uniform(low: float, high: float, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def probability_of_success(trials: int, fraction: float) -> float:
    return 1 - (1 - fraction) ** trials


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    gain = best - mean
    z = gain / np.where(std > 0, std, 1)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    distribution = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in z])
    return np.where(std > 0, gain * distribution + std * density, np.maximum(gain, 0))


def successive_halving(
    candidates: list[int],
    loss: Callable[[int, int], float],
    min_epochs: int,
    max_epochs: int,
    eta: int = 3,
) -> int:
    epochs = min_epochs
    while True:
        losses = {candidate: loss(candidate, epochs) for candidate in candidates}
        ranked = sorted(candidates, key=lambda candidate: losses[candidate])
        candidates = ranked[: max(1, len(ranked) // eta)]
        if len(candidates) == 1 or epochs == max_epochs:
            return candidates[0]
        epochs = min(epochs * eta, max_epochs)
