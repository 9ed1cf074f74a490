"""Solutions of day 47."""

import math
from collections import Counter, defaultdict

import numpy as np


def majority_baseline(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    return float((test_labels == np.bincount(train_labels).argmax()).mean())


def samples_needed(
    first: float, second: float, z_alpha: float = 1.96, z_power: float = 0.8416
) -> int:
    variance = first * (1 - first) + second * (1 - second)
    return math.ceil((z_alpha + z_power) ** 2 * variance / (first - second) ** 2)


def leaked_samples(
    train: list[str], test: list[str], n: int = 3, threshold: float = 0.8
) -> list[int]:
    def ngrams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}

    grams = [ngrams(text) for text in train]
    texts_with = defaultdict(list)
    for index, found in enumerate(grams):
        for gram in found:
            texts_with[gram].append(index)
    leaked = []
    for index, text in enumerate(test):
        own = ngrams(text)
        common = Counter(other for gram in own for other in texts_with.get(gram, ()))
        if any(
            number / (len(own) + len(grams[other]) - number) >= threshold
            for other, number in common.items()
        ):
            leaked.append(index)
    return leaked
