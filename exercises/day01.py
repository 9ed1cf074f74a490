"""Day 1: softmax, cross-entropy, a training loop and the confusion matrix."""

import numpy as np
import torch
from torch import Tensor, nn


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis.

        p_i = exp(s_i) / Σ_j exp(s_j)

    Show first that p does not change if a constant is added to all scores; then choose the constant
    so that no score up to 1e4 overflows.

    Args:
        scores: Array of shape (..., C).

    Returns:
        Probabilities of shape (..., C).

    Source: Goodfellow, Bengio & Courville, Deep Learning, section 4.1.
    """
    raise NotImplementedError


def cross_entropy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood of the labels.

        loss = 1/N Σ_n (log Σ_j exp(s_nj) - s_n,y_n)

    The loss must be finite where softmax(scores) underflows to 0.

    Args:
        scores: Array of shape (N, C).
        labels: Integers from 0 to C - 1, of shape (N,).

    Source: Goodfellow, Bengio & Courville, Deep Learning, section 6.2.2.3.
    """
    raise NotImplementedError


def train_epoch(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
) -> float:
    """Train for one epoch, in the order of the data, and return the mean loss of its samples.

    Put the network into training mode. For each batch: loss (F.cross_entropy), gradients, step. The
    last batch may be smaller than the others. The returned loss is that before each step.

    Args:
        net: Network from (B, …) to scores (B, C).
        images: Inputs of shape (N, …).
        labels: Classes of shape (N,).
        optimizer: Optimizer of the network's parameters.
        batch_size: Number of samples of a step.
    """
    raise NotImplementedError


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the samples of true class i that are predicted as class j, without a Python loop.

    Args:
        labels: True classes of shape (N,).
        predictions: Predicted classes of shape (N,).
        num_classes: Number of classes C.

    Returns:
        Integer array of shape (C, C); rows are true classes, as in scikit-learn.
    """
    raise NotImplementedError
