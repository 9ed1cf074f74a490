"""Day 47: capstone, planning: baselines, sample sizes and leakage."""

import numpy as np


def majority_baseline(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of always predicting the most frequent class of the training data.

    Of equally frequent classes the smallest is predicted. Any model of the project has to be
    better.

    Args:
        train_labels: Integers >= 0, (N,).
        test_labels: Integers >= 0, (M,).
    """
    raise NotImplementedError


def samples_needed(
    first: float, second: float, z_alpha: float = 1.96, z_power: float = 0.8416
) -> int:
    """Return how many test samples show the difference of two accuracies.

        n = (z_α + z_power)² · (p₁ (1 - p₁) + p₂ (1 - p₂)) / (p₁ - p₂)²

    Derive it for two independent test sets of n samples: under the normal approximation a two-sided
    test of level 5 % finds the difference with probability 80 %. Round up.

    Args:
        first: Accuracy of the first model.
        second: Accuracy of the second, not equal to the first.
        z_alpha: Normal quantile of the level.
        z_power: Normal quantile of the power.

    Source: Fleiss, Levin & Paik, Statistical methods for rates and proportions, chapter 4.
    """
    raise NotImplementedError


def leaked_samples(
    train: list[str], test: list[str], n: int = 3, threshold: float = 0.8
) -> list[int]:
    """Return the test texts that are (nearly) in the training data.

    Two texts are near-duplicates if the Jaccard similarity |A ∩ B| / |A ∪ B| of their sets of word
    n-grams is at least the threshold. Words are lower case, split at whitespace; a text with fewer
    than n words has one n-gram, all of its words. 1,000 x 1,000 texts must take a few seconds:
    compare only texts that share an n-gram.

    Args:
        train: Training texts.
        test: Test texts.
        n: Words of an n-gram.
        threshold: Similarity in (0, 1].

    Returns:
        Indices of test texts, ascending.

    Source: Lee et al. 2022 (arXiv:2107.06499).
    """
    raise NotImplementedError
