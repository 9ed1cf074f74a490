"""Day 8: hyper-parameter search: sampling, expected improvement and successive halving."""

from collections.abc import Callable

import numpy as np


def log_uniform(low: float, high: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return samples whose logarithm is uniform, for parameters such as a learning rate.

    Args:
        low: Smallest value, > 0.
        high: Largest value.
        size: Number of samples.
        rng: Source of random numbers.

    Source: Bergstra & Bengio 2012, Random search for hyper-parameter optimization.
    """
    raise NotImplementedError


def probability_of_success(trials: int, fraction: float) -> float:
    """Return the probability that random search finds one of the best settings.

    Args:
        trials: Number of independent uniform samples.
        fraction: Fraction of the search space that counts as best, such as 0.05.

    Source: Bergstra & Bengio 2012. Show that 59 trials reach 95 % for the best 5 %.
    """
    raise NotImplementedError


def expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """Return the expected improvement of normally distributed losses over the best loss so far.

        EI = E[max(best - L, 0)] = (best - μ) Φ(z) + σ φ(z),  z = (best - μ) / σ

    Derive it by integration. Where σ is 0 it is max(best - μ, 0).

    Args:
        mean: Predicted mean μ of the loss of each candidate, (N,).
        std: Predicted standard deviation σ, (N,), >= 0.
        best: Lowest loss so far.

    Source: Jones, Schonlau & Welch 1998, Efficient global optimization.
    """
    raise NotImplementedError


def successive_halving(
    candidates: list[int],
    loss: Callable[[int, int], float],
    min_epochs: int,
    max_epochs: int,
    eta: int = 3,
) -> int:
    """Return the best of many candidates, training most of them for a short time only.

    Evaluate all candidates with `min_epochs`; keep the best 1/eta (rounded down, at least one);
    repeat with eta times the epochs, at most max_epochs. End after an evaluation with max_epochs
    or when one candidate is left, and return the candidate with the lowest loss of the last one.

    Args:
        candidates: Settings to compare.
        loss: Returns the loss of a candidate after a number of epochs.
        min_epochs: Epochs of the first round.
        max_epochs: Most epochs of a round.
        eta: Reduction from round to round.

    Source: Jamieson & Talwalkar 2016 (arXiv:1502.07943).
    """
    raise NotImplementedError
