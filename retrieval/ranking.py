"""Scored candidates of a query, and their fusion over several components."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Fusion = Literal["z_scores", "reciprocal_ranks"]
FUSIONS: tuple[str, ...] = get_args(Fusion)


class Ranking(NamedTuple):
    """Rows with their scores, the best first; equal scores in the order of the rows.

    Args:
        rows: (n,) int64, none twice.
        scores: (n,) float64, descending.
    """

    rows: np.ndarray
    scores: np.ndarray

    def top(self, k: int) -> "Ranking":
        return Ranking(self.rows[:k], self.scores[:k])


def rank(rows: np.ndarray, scores: np.ndarray, k: int | None = None) -> Ranking:
    """Sort rows by their scores and return the best `k`."""
    scores = scores.astype(np.float64)
    if k is not None and k < len(scores):
        kth = -np.partition(-scores, k - 1)[k - 1]
        kept = scores >= kth  # with all that are equal to the last: ties are broken by row
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return Ranking(rows[order].astype(np.int64), scores[order])


def best_per_group(ranking: Ranking, groups: np.ndarray) -> Ranking:
    """Return the best score of each group, such as of a chunk from its sentences.

    Args:
        ranking: Ranked rows.
        groups: Group of every row, (N,).
    """
    owners, first = np.unique(groups[ranking.rows], return_index=True)
    return rank(owners, ranking.scores[first])


def fuse(
    rankings: Sequence[Ranking], method: Fusion = "z_scores", weights: Sequence[float] | None = None
) -> Ranking:
    """Combine rankings of the same query.

    `z_scores` adds the standardized scores, with mean and standard deviation over the candidates of
    a ranking; a row that a ranking lacks gets its lowest. `reciprocal_ranks` adds 1 / (60 + rank)
    (Cormack et al. 2009).

    Args:
        rankings: At least one; empty ones add nothing.
        method: How to combine.
        weights: Factor of each ranking; 1 by default.
    """
    factors = [1.0] * len(rankings) if weights is None else list(weights)
    used = [(r, w) for r, w in zip(rankings, factors, strict=True) if len(r.rows)]
    if not used:
        return Ranking(np.empty(0, np.int64), np.empty(0))
    rows = np.unique(np.concatenate([ranking.rows for ranking, _ in used]))
    total = np.zeros(len(rows))
    for ranking, weight in used:
        values = _z_scores(ranking) if method == "z_scores" else _reciprocal_ranks(ranking)
        missing = values.min() if method == "z_scores" else 0.0
        added = np.full(len(rows), missing)
        added[np.searchsorted(rows, ranking.rows)] = values
        total += weight * added
    return rank(rows, total)


def _z_scores(ranking: Ranking) -> np.ndarray:
    spread = ranking.scores.std()
    return (ranking.scores - ranking.scores.mean()) / (spread if spread > 0 else 1.0)


def _reciprocal_ranks(ranking: Ranking) -> np.ndarray:
    return 1 / (61 + np.arange(len(ranking.rows)))
