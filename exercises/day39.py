"""Day 39: pipelines: stable splits, drift of the data, and what has to run again."""

import numpy as np


def hash_split(keys: list[str], val_percent: int, salt: str = "") -> list[str]:
    """Return "train" or "val" for each sample, by a hash of its key.

    A key is in "val" if the first 8 bytes of SHA-256 of (salt + key) in UTF-8, a big-endian
    integer, are below val_percent modulo 100. The split of a key thus does not depend on the other
    samples, and samples with one key (a patient, an author) are on the same side.

    Args:
        keys: Key of each sample.
        val_percent: Percentage of the keys in "val".
        salt: Changes the split.
    """
    raise NotImplementedError


def population_stability(expected: np.ndarray, actual: np.ndarray, bins: int = 10) -> float:
    """Return the population stability index of a feature, for drift between training and serving.

        PSI = Σ_b (a_b - e_b) log(a_b / e_b)

    The inner edges of the bins are the quantiles 1/bins, …, (bins - 1)/bins of `expected`; the
    outer ones are infinite. A bin holds values from its lower edge (included) to its upper one.
    Shares below 1e-4 count as 1e-4.

    Args:
        expected: Values in training, (N,).
        actual: Values in production, (M,).
        bins: Number of bins.

    Source: Siddiqi 2006, Credit risk scorecards.
    """
    raise NotImplementedError


def stale_steps(inputs: dict[str, list[str]], changed: set[str]) -> list[str]:
    """Return the steps of a pipeline that have to run again, in an order in which they can.

    A step is stale if it, a file that it reads, or a step that it reads is changed or stale. A step
    comes after all steps that it reads; of several that can run the first in alphabetical order.

    Args:
        inputs: Each step to the files and steps that it reads. Names that are not keys are files.
        changed: Changed files, and steps whose code changed.

    Raises:
        ValueError: If steps depend on each other in a circle.
    """
    raise NotImplementedError
