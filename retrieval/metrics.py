"""Metrics of rankings, as trec_eval computes them, and of confidence scores."""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def recall(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Return the fraction of the relevant documents that are among the first `k`."""
    relevant = {name for name, grade in relevance.items() if grade > 0}
    return len(relevant & set(ranked[:k])) / len(relevant)


def reciprocal_rank(ranked: Sequence[str], relevance: Mapping[str, int]) -> float:
    """Return 1 / rank of the first relevant document, 0 if there is none."""
    ranks = (rank for rank, name in enumerate(ranked, 1) if relevance.get(name, 0) > 0)
    return next((1 / rank for rank in ranks), 0.0)


def ndcg(ranked: Sequence[str], relevance: Mapping[str, int], k: int) -> float:
    """Return the normalized discounted cumulative gain (Järvelin & Kekäläinen 2002).

    Args:
        ranked: Names of documents, the best first.
        relevance: Grade of each judged document; others have 0.
        k: Number of documents that count.
    """
    gains = [max(relevance.get(name, 0), 0) for name in ranked[:k]]
    best = sorted((grade for grade in relevance.values() if grade > 0), reverse=True)[:k]
    return _discounted(gains) / _discounted(best)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def area_under_roc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the probability that a positive has a higher score than a negative."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left") + np.searchsorted(order, positive, "right")
    return float(below.mean() / 2 / len(negative))


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, level: float = 0.95, samples: int = 1000
) -> tuple[float, float]:
    """Return a confidence interval of the mean, by resampling the queries with a fixed seed."""
    draw = np.random.default_rng(0)
    rows = np.asarray(values, np.float64)
    means = [rows[draw.integers(len(rows), size=len(rows))].mean() for _ in range(samples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
