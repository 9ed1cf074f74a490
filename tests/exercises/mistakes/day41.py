"""Typical wrong solutions of day 41."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "bm25_scores",
        "np.log(1 + (len(documents)",
        "np.log((len(documents)",
        "idf must not be negative",
    ),
    Mistake(
        "bm25_scores",
        "k1 * (1 - b + b * lengths / lengths.mean())",
        "k1",
        "normalization by length",
    ),
    Mistake("bm25_scores", " * (k1 + 1)", "", "k1 + 1 is missing"),
    Mistake(
        "nearest",
        "normalize(queries) @ normalize(vectors).T",
        "queries @ vectors.T",
        "divide by the norms",
    ),
    Mistake("nearest", "np.argsort(-similarity", "np.argsort(similarity", "descending"),
    Mistake("nearest", "np.where(norms == 0, 1, norms)", "norms", "similarity 0"),
    Mistake("recall_at_k", "/ len(right)", "/ k", "this is the precision"),
    Mistake("recall_at_k", "found[:k]", "found", "only the first k"),
    Mistake(
        "mean_reciprocal_rank",
        "total / len(retrieved)",
        "total / sum(bool(r & set(f)) for f, r in zip(retrieved, relevant))",
        "counts as 0",
    ),
    Mistake(
        "reciprocal_rank_fusion",
        "scores.get(document, 0.0) + 1 / (k + rank)",
        "max(scores.get(document, 0.0), 1 / (k + rank))",
        "adds up",
    ),
    Mistake("reciprocal_rank_fusion", "(k + rank)", "rank", "use k"),
    Mistake(
        "reciprocal_rank_fusion",
        "(-scores[document], document)",
        "-scores[document]",
        "equal scores by document",
    ),
]
