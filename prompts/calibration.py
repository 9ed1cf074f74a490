"""Correct the preference of a language model for some labels, whatever the text.

Scores are log-probabilities of the labels, (N, K); calibrated scores are again log-probabilities.
"""

import numpy as np

CONTENT_FREE = ("N/A", "", "[MASK]")  # texts without a meaning, as in Zhao et al. 2021


def contextual(scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Divide by the probabilities that the labels have for texts without a meaning.

    Zhao et al. 2021, "Calibrate before use: improving few-shot performance of language models".

    Args:
        scores: Log-probabilities of the labels of N texts, (N, K).
        content_free: Those of the texts of CONTENT_FREE with the same examples, (M, K).
    """
    return _normalized(_normalized(scores) - _log_mean(_normalized(content_free)))


def batch(scores: np.ndarray) -> np.ndarray:
    """Divide by the mean probabilities of the labels over all texts, which need no labels.

    Zhou et al. 2023, "Batch calibration: rethinking calibration for in-context learning and prompt
    engineering". It assumes that the labels are about equally frequent.

    Args:
        scores: Log-probabilities of the labels of N texts, (N, K).
    """
    return _normalized(_normalized(scores) - _log_mean(_normalized(scores)))


def _log_mean(scores: np.ndarray) -> np.ndarray:
    return np.log(np.exp(scores).mean(axis=0))  # (K,)


def _normalized(scores: np.ndarray) -> np.ndarray:
    """Return log-probabilities that add up to 1 over the labels."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    normalized: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalized
