"""Day 18: text classification: naive Bayes, convolutions over words, balanced weights."""

import numpy as np
import torch
from torch import Tensor


def naive_bayes(
    counts: np.ndarray, labels: np.ndarray, alpha: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Fit multinomial naive Bayes and return its log-probabilities.

        p(c) = N_c / N,  p(w | c) = (n_cw + α) / (Σ_v n_cv + α V)

    Args:
        counts: Words of each text, (N, V).
        labels: Classes from 0 to C - 1, each with a text, (N,).
        alpha: Smoothing, > 0.

    Returns:
        log p(c), (C,), and log p(w | c), (C, V).

    Source: Manning, Raghavan & Schütze, Introduction to Information Retrieval, section 13.2.
    """
    raise NotImplementedError


def max_over_time(embedded: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Return the largest ReLU activation of each filter over the windows of a text.

    A window of K words begins at any position; it counts only if all of its words are in the text.
    A text with fewer than K words gives zeros.

    Args:
        embedded: Word vectors, (B, T, D), T >= K.
        weight: Filters, (F, K, D).
        bias: Bias of the filters, (F,).
        mask: Booleans (B, T), True for words; padding is at the end.

    Returns:
        Tensor of shape (B, F).

    Source: Kim 2014 (arXiv:1408.5882), equations 2 to 4.
    """
    raise NotImplementedError


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return class weights that give each class the same total weight, as scikit-learn's
    "balanced".

        w_c = N / (C' · N_c)

    C' is the number of classes that occur; a class without samples has weight 0.

    Args:
        labels: Classes of the training data, (N,).
        num_classes: Number of classes.

    Returns:
        Array of shape (num_classes,).
    """
    raise NotImplementedError
