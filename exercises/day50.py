"""Day 50: project 5: results that hold: corrected p-values, intervals and how to print them."""

import numpy as np


def holm(p_values: list[float]) -> list[float]:
    """Return p-values that are corrected for the number of comparisons by Holm's method.

    With the p-values sorted ascending, the i-th of m (from 0) is multiplied by m - i; a corrected
    value is at least as large as those before it, and at most 1. The result is in the order of the
    input.

    Args:
        p_values: The p-value of each comparison.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    raise NotImplementedError


def paired_interval(
    first: np.ndarray, second: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the difference of two accuracies on one test set.

    Resample test samples, with the results of both models together; the interval is between the
    quantiles 2.5 % and 97.5 % of mean(first) - mean(second).

    Args:
        first: Whether the first model is correct on each sample, (N,).
        second: Whether the second is, on the same samples, (N,).
        resamples: Number of resamples.
        rng: Source of random numbers.

    Source: Efron & Tibshirani 1993, An introduction to the bootstrap.
    """
    raise NotImplementedError


def format_result(values: list[float]) -> str:
    """Return "mean ± standard deviation", with as many digits as the deviation supports.

    The standard deviation (divided by n - 1) is printed with one significant digit, the mean with
    as many decimals, at least 0. One value, or a deviation of 0, is printed as f"{mean:.4g}".

        [0.9812, 0.9797, 0.9821] → "0.981 ± 0.001",  [123.0, 161.0] → "142 ± 27"

    A deviation of at least 1 is printed without decimals.

    Args:
        values: Result of each seed, at least one.
    """
    raise NotImplementedError
