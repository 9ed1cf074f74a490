"""Perplexity from its formula: the effective number of equally likely next tokens.

Jelinek et al. 1977. For a model that assigns probabilities p_i to the N tokens of a text:

    perplexity = exp(-(1/N) Σ ln p_i) = (p_1 · … · p_N)^(-1/N)

Uniform predictions over V tokens have perplexity V, certain and correct ones have 1. Logarithms are
summed, because the product of a few hundred probabilities underflows.
"""

import math

import numpy as np


def perplexity(logits: np.ndarray, targets: np.ndarray, ignore_index: int = -100) -> float:
    """Return the perplexity of a text.

    Args:
        logits: (N, V), predictions of each position.
        targets: (N,), the true tokens.
        ignore_index: Targets that are excluded.

    Raises:
        ValueError: If all targets are excluded.
    """
    counted = targets != ignore_index
    if not counted.any():
        raise ValueError("perplexity needs at least one target that is not ignore_index")
    x = logits[counted].astype(np.float64)  # (n, V)
    # ln p = x_w - ln Σ e^x; subtracting the maximum prevents overflow
    shifted = x - x.max(axis=1, keepdims=True)  # (n, V)
    log_sums = np.log(np.exp(shifted).sum(axis=1))  # (n,)
    log_p = shifted[np.arange(len(shifted)), targets[counted]] - log_sums  # (n,)
    return math.exp(-log_p.mean())
