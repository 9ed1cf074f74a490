"""Day 49: capstone, evaluation: ablations, trade-offs and limits of speed."""

import numpy as np


def ablation_effects(
    results: dict[str, list[float]], baseline: str
) -> dict[str, tuple[float, float]]:
    """Return how much each variant differs from the baseline: mean and standard error.

    Run i of every variant has the same seed, so differences are taken seed by seed, and the
    standard error is that of their mean: the standard deviation (divided by n - 1) over √n.

    Args:
        results: Metric of each seed, at least two, for each variant and the baseline.
        baseline: Name of the baseline.

    Returns:
        Mean difference (variant minus baseline) and its standard error for each other variant.
    """
    raise NotImplementedError


def pareto_front(models: dict[str, tuple[float, float]]) -> list[str]:
    """Return the models that no other model dominates, cheapest first.

    A model is dominated if another one costs at most as much and is at least as accurate, and is
    better in one of both. Of equal models all are kept, in alphabetical order.

    Args:
        models: Name to (cost, accuracy).
    """
    raise NotImplementedError


def amdahl_speedup(fractions: list[float], speedups: list[float]) -> float:
    """Return the speed-up of a program of which parts are made faster.

    Args:
        fractions: Fraction of the time that each part takes today; the rest is unchanged.
        speedups: Speed-up of each part.

    Source: Amdahl 1967.
    """
    raise NotImplementedError


def roofline_seconds(
    flops: float, bytes_moved: float, peak_flops: float, bandwidth: float
) -> tuple[float, str]:
    """Return the least time of an operation, and what bounds it: "compute" or "memory".

    Computing and moving data overlap. If both take equally long the answer is "compute". Decide
    with it why generating one token at a time is slow.

    Args:
        flops: Operations.
        bytes_moved: Bytes read and written.
        peak_flops: Operations per second of the machine.
        bandwidth: Bytes per second of its memory.

    Source: Williams, Waterman & Patterson 2009, Roofline.
    """
    raise NotImplementedError
