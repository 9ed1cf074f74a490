"""Day 41: retrieval: BM25, cosine similarity, ranking metrics and rank fusion."""

import numpy as np


def bm25_scores(
    query: list[str], documents: list[list[str]], k1: float = 1.5, b: float = 0.75
) -> np.ndarray:
    """Return the BM25 score of each document.

        score = Σ_t∈query idf(t) · f(t) (k1 + 1) / (f(t) + k1 (1 - b + b · length / mean length))
        idf(t) = log(1 + (N - n(t) + 0.5) / (n(t) + 0.5))

    f(t) is the number of occurrences in the document, n(t) the number of documents that contain t.

    Args:
        query: Distinct terms.
        documents: Terms of each document.
        k1: Saturation of term frequencies.
        b: Normalization by length, from 0 to 1.

    Source: Robertson & Zaragoza 2009, The probabilistic relevance framework, section 3.
    """
    raise NotImplementedError


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k vectors with the largest cosine similarity, best first.

    Without a Python loop over queries or vectors. A zero vector has similarity 0 with all others.

    Args:
        queries: Array of shape (Q, D).
        vectors: Array of shape (N, D), N >= k.
        k: Number of neighbors.

    Returns:
        Integers of shape (Q, k).
    """
    raise NotImplementedError


def recall_at_k(retrieved: list[list[int]], relevant: list[set[int]], k: int) -> float:
    """Return the mean recall of the first k results: the fraction of relevant documents among them.

    Queries without a relevant document are left out; without any other query the result is 0.

    Args:
        retrieved: Documents of each query, best first, without repetition.
        relevant: Relevant documents of each query.
        k: Number of results that count.
    """
    raise NotImplementedError


def mean_reciprocal_rank(retrieved: list[list[int]], relevant: list[set[int]]) -> float:
    """Return the mean over queries of 1 / rank of the first relevant document; 0 if there is none.

    Args:
        retrieved: Documents of each query, best first.
        relevant: Relevant documents of each query.
    """
    raise NotImplementedError


def reciprocal_rank_fusion(rankings: list[list[int]], k: int = 60) -> list[int]:
    """Return the documents of several rankings, fused.

        score(d) = Σ_rankings 1 / (k + rank of d),  ranks from 1

    A document that a ranking lacks gets nothing from it. Equal scores are sorted by document.

    Args:
        rankings: Documents of each ranking, best first.
        k: Damping of the first ranks.

    Source: Cormack, Clarke & Büttcher 2009, Reciprocal rank fusion outperforms Condorcet.
    """
    raise NotImplementedError
