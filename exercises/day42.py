"""Day 42: question answering with documents: chunks, context, answers and abstention."""

import numpy as np


def chunk(tokens: list[str], size: int, overlap: int) -> list[list[str]]:
    """Split a document into chunks of at most `size` tokens; neighbors share `overlap` tokens.

    Each token is in a chunk, the last chunk ends with the document, and no chunk lies inside
    another.

    Args:
        tokens: Tokens of the document; an empty one has no chunks.
        size: Most tokens of a chunk.
        overlap: Tokens that a chunk shares with the next one.

    Raises:
        ValueError: If overlap is not in [0, size).
    """
    raise NotImplementedError


def select_passages(scores: list[float], lengths: list[int], budget: int) -> list[int]:
    """Choose passages for a prompt: the best ones that fit into the budget, in document order.

    Go through the passages by descending score (equal scores: the earlier passage first) and take
    each that still fits; a passage that does not fit is skipped.

    Args:
        scores: Score of each passage, passages in document order.
        lengths: Tokens of each passage.
        budget: Most tokens of all chosen passages.

    Returns:
        Indices of the chosen passages, ascending.
    """
    raise NotImplementedError


def answer_f1(prediction: str, answer: str) -> float:
    """Return the F1 of the tokens of two answers, as in SQuAD.

    Normalize both: lower case, without punctuation (string.punctuation), without the words a, an
    and the. Common tokens count as often as they occur in both. If one answer has no tokens, the
    result is 1 if the other has none, either, else 0.

    Source: Rajpurkar et al. 2016 (arXiv:1606.05250), section 6.1, and the official script of
        version 2.
    """
    raise NotImplementedError


def abstention_threshold(scores: np.ndarray, correct: np.ndarray, precision: float) -> float:
    """Return the smallest threshold at which the answers that are given reach a precision.

    An answer is given if its score is at least the threshold, which must be one of the scores. If
    no threshold reaches the precision, return inf: always abstain. Precision is not monotone in the
    threshold, so look at all of them.

    Args:
        scores: Confidence of each answer on held-out questions, (N,).
        correct: Whether each answer is correct, (N,).
        precision: Required fraction of correct answers among those given.

    Source: Kamath, Jia & Liang 2020 (arXiv:2006.09462), selective question answering.
    """
    raise NotImplementedError
