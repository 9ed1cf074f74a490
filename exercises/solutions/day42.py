"""Solutions of day 42."""

import string
from collections import Counter

import numpy as np


def chunk(tokens: list[str], size: int, overlap: int) -> list[list[str]]:
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be in [0, {size}), not {overlap}")
    chunks = []
    for start in range(0, len(tokens), size - overlap):
        chunks.append(tokens[start : start + size])
        if start + size >= len(tokens):
            break
    return chunks


def select_passages(scores: list[float], lengths: list[int], budget: int) -> list[int]:
    chosen = []
    for index in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if lengths[index] <= budget:
            chosen.append(index)
            budget -= lengths[index]
    return sorted(chosen)


def answer_f1(prediction: str, answer: str) -> float:
    def normalize(text: str) -> Counter[str]:
        letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return Counter(word for word in letters.split() if word not in ("a", "an", "the"))

    found, right = normalize(prediction), normalize(answer)
    if not found or not right:
        return float(found == right)
    return 2 * (found & right).total() / (found.total() + right.total())


def abstention_threshold(scores: np.ndarray, correct: np.ndarray, precision: float) -> float:
    for threshold in np.unique(scores):  # ascending
        if correct[scores >= threshold].mean() >= precision:
            return float(threshold)
    return float("inf")
