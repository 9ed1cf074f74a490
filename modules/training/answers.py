"""Scores of short answers, as the evaluation script of SQuAD v1.1 computes them.

Rajpurkar et al. 2016, "SQuAD: 100,000+ questions for machine comprehension of text", section 6.1:
ignoring case, punctuation and articles, with the best of several correct answers.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation, English articles and extra spaces."""
    words = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION))
    return " ".join(words.split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1 if a prediction equals one of the correct answers, else 0."""
    normalized = normalize_answer(prediction)
    return float(any(normalized == normalize_answer(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the F1 of the words that a prediction and the nearest correct answer share."""
    return max(_f1(prediction, answer) for answer in answers)


def _f1(prediction: str, answer: str) -> float:
    predicted, correct = (normalize_answer(text).split() for text in (prediction, answer))
    common = (Counter(predicted) & Counter(correct)).total()
    # 2 P R / (P + R) with precision P = common / predicted and recall R = common / correct
    return 2 * common / (len(predicted) + len(correct)) if common else 0.0
