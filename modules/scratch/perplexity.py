"""Perplexity from its formula: among how many equally likely words a model seems to choose.

Jelinek et al. 1977. A model that gives the words w_1 … w_N of a text the probabilities p_i:

    perplexity = exp(-(1/N) Σ ln p_i) = (p_1 · … · p_N)^(-1/N)

A model that knows nothing of V words has the perplexity V, one that knows everything has 1. The sum
goes over logarithms: the product of a few hundred probabilities is 0 to a computer.
"""

import math

import numpy as np


def perplexity(logits: np.ndarray, targets: np.ndarray, ignored: int = -100) -> float:
    """The perplexity of a text.

    Args:
        logits: (N, V), what the model said at each place, up to a constant of the place.
        targets: (N,), the word that stood there.
        ignored: A target that counts for nothing.

    Raises:
        ValueError: If there is no target that counts.
    """
    counted = targets != ignored
    if not counted.any():
        raise ValueError("there is no target that counts: a text of no words has no perplexity")
    chosen = logits[counted].astype(np.float64)  # (n, V)
    # ln p = x_w - ln Σ e^x; with the largest x taken off first, no e^x is too large
    shifted = chosen - chosen.max(axis=1, keepdims=True)  # (n, V)
    log_sums = np.log(np.exp(shifted).sum(axis=1))  # (n,)
    log_p = shifted[np.arange(len(shifted)), targets[counted]] - log_sums  # (n,)
    return math.exp(-log_p.mean())
