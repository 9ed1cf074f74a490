"""Solutions of day 7."""

import math

import numpy as np


def macro_f1(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> float:
    hits = np.bincount(labels[labels == predictions], minlength=num_classes)
    total = np.bincount(labels, minlength=num_classes)
    total = total + np.bincount(predictions, minlength=num_classes)  # 2 TP + FP + FN
    return float(np.mean(2 * hits / np.maximum(total, 1)))


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # mean rank of equal scores
    positives = int(labels.sum())
    negatives = len(labels) - positives
    above = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def bootstrap_interval(
    values: np.ndarray, resamples: int, rng: np.random.Generator, level: float = 0.95
) -> tuple[float, float]:
    chosen = rng.integers(len(values), size=(resamples, len(values)))
    means = values[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar_p_value(first_correct: np.ndarray, second_correct: np.ndarray) -> float:
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n)
