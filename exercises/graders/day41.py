"""Grader of day 41."""

import math

import numpy as np

from exercises import expect
from exercises.grading import Task

DOCUMENTS = [
    "the cat sat on the mat".split(),
    "the dog barked".split(),
    "cat cat cat and dog and a very long tail of other words".split(),
    "nothing of interest here".split(),
]


def _bm25(query, documents, k1=1.5, b=0.75, idf=True, boost=True, lucene=True):
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in query:
            f = sum(word == term for word in document)
            n = sum(term in other for other in documents)
            ratio = (len(documents) - n + 0.5) / (n + 0.5)
            weight = math.log(1 + ratio if lucene else ratio) if idf else 1.0
            score += (
                weight
                * f
                * (k1 + 1 if boost else 1)
                / (f + k1 * (1 - b + b * len(document) / mean))
            )
        scores.append(score)
    return np.array(scores)


def scores_of_documents(bm25_scores):
    query = ["cat", "tail", "dog"]
    mistakes = {
        "the weight idf is missing.": _bm25(query, DOCUMENTS, idf=False),
        "the factor k1 + 1 is missing.": _bm25(query, DOCUMENTS, boost=False),
        "the normalization by length is missing.": _bm25(query, DOCUMENTS, b=0.0),
        "add 1 inside the logarithm: idf must not be negative.": _bm25(
            query, DOCUMENTS, lucene=False
        ),
        "b scales the length only: 1 - b + b · length / mean.": _bm25(query, DOCUMENTS, b=1.0),
    }
    expect.close(bm25_scores(query, DOCUMENTS), _bm25(query, DOCUMENTS), mistakes)


def scores_of_other_terms(bm25_scores):
    expect.close(bm25_scores(["zebra"], DOCUMENTS), np.zeros(4))
    right = _bm25(["the", "cat"], DOCUMENTS, 0.9, 0.4)
    expect.close(bm25_scores(["the", "cat"], DOCUMENTS, 0.9, 0.4), right)


def neighbors(nearest):
    queries, vectors = expect.normal(4, 6), expect.normal(30, 6, seed=1) * np.arange(1, 31)[:, None]
    cosine = np.array(
        [[q @ v / np.linalg.norm(q) / np.linalg.norm(v) for v in vectors] for q in queries]
    )
    order = np.argsort(-cosine, axis=1)
    distance = ((queries[:, None] - vectors[None]) ** 2).sum(-1)
    mistakes = {
        "divide by the norms: this is the dot product.": np.argsort(-(queries @ vectors.T), axis=1)[
            :, :5
        ],
        "the best come first: sort in descending order.": order[:, ::-1][:, :5],
        "the k best are right, but they must be sorted.": order[:, 4::-1],
        "use the cosine, not the distance.": np.argsort(distance, axis=1)[:, :5],
    }
    expect.close(nearest(queries, vectors, 5), order[:, :5], mistakes)


def neighbors_with_a_zero_vector(nearest):
    vectors = np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])
    with np.errstate(all="ignore"):
        result = nearest(np.array([[1.0, 0.0]]), vectors, 3)
    hint = "0 / 0 is nan, which sorts last: give zero vectors the similarity 0."
    expect.close(result, np.array([[2, 0, 1]]), {hint: np.array([[2, 1, 0]])})


def recall(recall_at_k):
    retrieved, relevant = [[1, 2, 3, 4], [5, 6, 7, 8]], [{2, 4, 9}, {5}]
    mistakes = {
        "divide by the number of relevant documents; this is the precision.": (0.5 + 0.5) / 2,
        "this is the hit rate: count the relevant documents.": 1.0,
        "average the queries, do not add up their documents.": 2 / 4,
        "only the first k results count.": (2 / 3 + 1) / 2,
    }
    expect.close(recall_at_k(retrieved, relevant, 2), (1 / 3 + 1) / 2, mistakes)


def recall_without_relevant_documents(recall_at_k):
    hint = "leave out queries without a relevant document."
    expect.close(recall_at_k([[1], [2]], [{1}, set()], 1), 1.0, {hint: 0.5})
    expect.close(recall_at_k([[1]], [set()], 1), 0.0)


def reciprocal_ranks(mean_reciprocal_rank):
    retrieved, relevant = [[3, 1, 2], [1, 2, 3], [4, 5]], [{2, 1}, {1}, {9}]
    mistakes = {
        "ranks begin at 1.": (1 / 1 + 1 / 1 + 0) / 3,
        "only the first relevant document counts.": (1 / 2 + 1 / 3 + 1) / 3,
        "a query without a hit counts as 0.": (1 / 2 + 1) / 2,
        "take the mean of 1 / rank, not 1 / the mean rank.": 1 / ((2 + 1) / 2),
    }
    expect.close(mean_reciprocal_rank(retrieved, relevant), 0.5, mistakes)


def fused_ranking(reciprocal_rank_fusion):
    rankings = [[1, 2, 3, 4], [3, 5, 2], [2, 6]]
    hint = "a document that several rankings contain adds up."
    expect.equal(reciprocal_rank_fusion(rankings), [2, 3, 1, 5, 6, 4], {hint: [1, 2, 3, 5, 6, 4]})


def damping_of_the_fusion(reciprocal_rank_fusion):
    rankings = [[1, 2], [3, 2]]
    expect.equal(
        reciprocal_rank_fusion(rankings, 60), [2, 1, 3], {"use k: 60 favors agreement.": [1, 2, 3]}
    )
    mistakes = {"ranks begin at 1, and k is added to them.": [2, 1, 3]}
    expect.equal(
        reciprocal_rank_fusion([[1, 2], [3, 2]], 0), [1, 2, 3], mistakes, "the result for k = 0"
    )


def equal_scores(reciprocal_rank_fusion):
    expect.equal(
        reciprocal_rank_fusion([[9], [4]]), [4, 9], {"sort equal scores by document.": [9, 4]}
    )
    expect.equal(reciprocal_rank_fusion([]), [])


TASKS = [
    Task("bm25_scores", [scores_of_documents, scores_of_other_terms]),
    Task("nearest", [neighbors, neighbors_with_a_zero_vector]),
    Task("recall_at_k", [recall, recall_without_relevant_documents]),
    Task("mean_reciprocal_rank", [reciprocal_ranks]),
    Task("reciprocal_rank_fusion", [fused_ranking, damping_of_the_fusion, equal_scores]),
]
