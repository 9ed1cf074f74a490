"""Solutions of day 41."""

import numpy as np


def bm25_scores(
    query: list[str], documents: list[list[str]], k1: float = 1.5, b: float = 0.75
) -> np.ndarray:
    lengths = np.array([len(document) for document in documents])
    scores = np.zeros(len(documents))
    for term in query:
        frequency = np.array([document.count(term) for document in documents])
        containing = np.count_nonzero(frequency)
        idf = np.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
        norm = k1 * (1 - b + b * lengths / lengths.mean())
        scores += idf * frequency * (k1 + 1) / (frequency + norm)
    return scores


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    def normalize(x: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        return x / np.where(norms == 0, 1, norms)

    similarity = normalize(queries) @ normalize(vectors).T  # (Q, N)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def recall_at_k(retrieved: list[list[int]], relevant: list[set[int]], k: int) -> float:
    recalls = [
        len(right.intersection(found[:k])) / len(right)
        for found, right in zip(retrieved, relevant, strict=True)
        if right
    ]
    return sum(recalls) / len(recalls) if recalls else 0.0


def mean_reciprocal_rank(retrieved: list[list[int]], relevant: list[set[int]]) -> float:
    total = 0.0
    for found, right in zip(retrieved, relevant, strict=True):
        total += next((1 / rank for rank, item in enumerate(found, start=1) if item in right), 0.0)
    return total / len(retrieved)


def reciprocal_rank_fusion(rankings: list[list[int]], k: int = 60) -> list[int]:
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, document in enumerate(ranking, start=1):
            scores[document] = scores.get(document, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda document: (-scores[document], document))
