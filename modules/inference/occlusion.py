"""Explain a text classifier by occlusion: how the probability changes without a word.

Li et al. 2016, "Understanding neural networks through representation erasure".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from preprocessing.texts import split_words

BATCH_SIZE = 32  # variants of a text that are classified at once
MAX_WORDS = 200  # words that are removed in turn; later ones are not explained


class WordWeight(NamedTuple):
    """The contribution of a word of a raw text."""

    word: str
    start: int  # offset of its first character
    end: int  # offset after its last character
    weight: float  # by how much the probability falls without the word


class Explanation(NamedTuple):
    """The most probable class of a text and the contribution of its words."""

    label: str
    probability: float
    words: list[WordWeight]


def explain(task: Any, texts: Sequence[str]) -> list[Explanation]:
    """Return the most probable class of each text, and its probability without each word.

    Args:
        task: A task with `probabilities(texts) -> (B, C)` and `class_names`.
        texts: Raw texts. Each is classified once for each of its first 200 words.
    """
    explanations = []
    for text in texts:
        spans = split_words(text)[:MAX_WORDS]
        row = task.probabilities([text])[0].tolist()  # (C,)
        probability = max(row)
        best = row.index(probability)
        variants = [text[:start] + text[end:] for start, end in spans]
        without: list[float] = []
        for first in range(0, len(variants), BATCH_SIZE):
            rows = task.probabilities(variants[first : first + BATCH_SIZE])  # (B, C)
            without += rows[:, best].tolist()
        words = [
            WordWeight(text[start:end], start, end, probability - other)
            for (start, end), other in zip(spans, without, strict=True)
        ]
        explanations.append(Explanation(task.class_names[best], probability, words))
    return explanations
