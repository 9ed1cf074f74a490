"""Day 44: evaluation of language models and of their safeguards."""

import numpy as np


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = 10
) -> float:
    """Return the expected calibration error with bins of equal width.

        ECE = Σ_b n_b / N · |accuracy_b - mean confidence_b|

    Bin b holds confidences in ((b - 1) / bins, b / bins]; confidence 0 belongs to the first bin.
    Empty bins contribute nothing.

    Args:
        confidence: Confidence of each answer, in [0, 1], (N,).
        correct: Whether each answer is correct, (N,).
        bins: Number of bins.

    Source: Guo et al. 2017 (arXiv:1706.04599), equation 5.
    """
    raise NotImplementedError


def filter_threshold(scores: np.ndarray, unsafe: np.ndarray, max_false_positives: float) -> float:
    """Return the threshold of a safety filter that blocks prompts with a score at or above it.

    Of the scores, choose the smallest (it blocks the most unsafe prompts) at which at most the
    fraction `max_false_positives` of the safe prompts is blocked; inf if there is none.

    Args:
        scores: Score of each prompt of a labeled set, larger is less safe, (N,).
        unsafe: Whether each prompt is unsafe, (N,); some are safe.
        max_false_positives: Largest fraction of safe prompts that may be blocked.
    """
    raise NotImplementedError


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate.

    Derive it: the interval contains each p with |p̂ - p| <= z √(p (1 - p) / n), a quadratic
    inequality. It is not empty for 0 successes, where the normal interval p̂ ± z √(p̂ (1 - p̂) / n)
    is a point.

    Args:
        successes: Number of successes, such as attacks that got through.
        trials: Number of trials, at least 1.
        z: Quantile of the normal distribution.

    Source: Wilson 1927; Brown, Cai & DasGupta 2001, Interval estimation for a binomial proportion.
    """
    raise NotImplementedError


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k samples is correct.

        1 - C(n - c, k) / C(n, k)

    Derive it, and show that 1 - (1 - c/n)^k is too small on average. n may be several thousand.

    Args:
        samples: Number of samples n.
        correct: Number c of them that are correct.
        k: Number of samples that one may try, at most n.

    Source: Chen et al. 2021 (arXiv:2107.03374), equation 1.
    """
    raise NotImplementedError


def cohen_kappa(first: list[str], second: list[str]) -> float:
    """Return Cohen's kappa, the agreement of two judges beyond chance.

        κ = (p_o - p_e) / (1 - p_e),  p_e = Σ_labels p_first(label) · p_second(label)

    If p_e is 1, both judges always give one same label; the result is then 1.

    Args:
        first: Label of each answer by the first judge, such as a language model.
        second: Label of each answer by the second judge, such as a person.

    Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    raise NotImplementedError
