"""Day 7: evaluation: macro F1, the area under the ROC curve, intervals and tests."""

import numpy as np


def macro_f1(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> float:
    """Return the unweighted mean of the F1 of all classes.

        F1 = 2 TP / (2 TP + FP + FN), and 0 for a class that occurs in neither array

    Args:
        labels: True classes, (N,).
        predictions: Predicted classes, (N,).
        num_classes: Number of classes.
    """
    raise NotImplementedError


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve.

    Show that it is the probability that a random positive has a higher score than a random
    negative, ties counting one half. O(N log N): arrays of 100,000 scores are normal.

    Args:
        labels: 0 or 1, (N,); both occur.
        scores: Score of class 1, (N,).

    Source: Hanley & McNeil 1982; the Mann-Whitney statistic.
    """
    raise NotImplementedError


def bootstrap_interval(
    values: np.ndarray, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean.

    Draw `resamples` samples of N values with replacement; the interval is between the quantiles
    (1 - level) / 2 and (1 + level) / 2 of their means.

    Args:
        values: Such as 1 for a correct and 0 for a wrong answer, (N,).
        resamples: Number of samples.
        rng: Source of random numbers.
        level: Confidence level.

    Source: Efron & Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    raise NotImplementedError


def mcnemar_p_value(first_correct: np.ndarray, second_correct: np.ndarray) -> float:
    """Return the exact two-sided p-value that two classifiers have the same error rate.

    Only samples that exactly one of them gets right tell them apart. Under the hypothesis their
    number b for the first, of n in total, is binomial with probability 1/2:

        p = min(1, 2 · P(X <= min(b, n - b)))

    Without such samples p is 1.

    Args:
        first_correct: Whether the first classifier is correct on each sample, (N,).
        second_correct: Whether the second is, on the same samples, (N,).

    Source: McNemar 1947; Dietterich 1998.
    """
    raise NotImplementedError
