"""Solutions of day 12."""

import numpy as np


def skip_gram_pairs(words: list[int], window: int) -> list[tuple[int, int]]:
    pairs = []
    for position, center in enumerate(words):
        first, last = max(0, position - window), min(len(words), position + window + 1)
        pairs += [(center, words[other]) for other in range(first, last) if other != position]
    return pairs


def negative_sampling(
    center: np.ndarray, context: np.ndarray, negatives: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    positive, negative = context @ center, negatives @ center  # scores: scalar, (K,)
    loss = np.logaddexp(0, -positive) + np.logaddexp(0, negative).sum()
    dpositive = -np.exp(-np.logaddexp(0, positive))  # -σ(-x)
    dnegative = np.exp(-np.logaddexp(0, -negative))  # σ(x)
    dcenter = dpositive * context + dnegative @ negatives
    return float(loss), dcenter, dpositive * center, dnegative[:, None] * center


def keep_probability(frequency: np.ndarray, threshold: float = 1e-5) -> np.ndarray:
    return np.sqrt(threshold / np.maximum(frequency, threshold))


def analogy(vectors: np.ndarray, a: int, b: int, c: int) -> int:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ (unit[b] - unit[a] + unit[c])
    similarity[[a, b, c]] = -np.inf
    return int(similarity.argmax())
