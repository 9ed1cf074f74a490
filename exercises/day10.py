"""Day 10: project 1: label smoothing, one-cycle schedule, shifts and ensembles for MNIST."""

import numpy as np
import torch
from torch import Tensor


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean cross-entropy with smoothed labels.

    The target distribution is 1 - ε on the label plus ε / C on each class, the label included.
    Derive that the loss is (1 - ε) times the usual one plus ε times the mean of -log p over all
    classes.

    Args:
        logits: Tensor of shape (N, C).
        labels: Classes, (N,).
        smoothing: The ε, in [0, 1).

    Source: Szegedy et al. 2016 (arXiv:1512.00567), section 7.
    """
    raise NotImplementedError


def one_cycle(step: int, total_steps: int, max_lr: float, warmup: float = 0.3) -> float:
    """Return the learning rate of a linear one-cycle schedule.

    From 0 at step 0 up to max_lr at step warmup · total_steps, then down to 0 at total_steps.

    Args:
        step: Step, from 0 to total_steps.
        total_steps: Number of steps.
        max_lr: Largest learning rate.
        warmup: Fraction of the steps in which the rate grows, in [0, 1); 0 starts at max_lr.

    Source: Smith & Topin 2018 (arXiv:1708.07120).
    """
    raise NotImplementedError


def shift(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return images moved by whole pixels; pixels that enter are 0.

    Args:
        images: Array of shape (N, H, W).
        down: Rows to move down; negative moves up.
        right: Columns to move right; negative moves left.
    """
    raise NotImplementedError


def ensemble_nll(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the negative log-likelihood of an ensemble that averages probabilities.

    Show with Jensen's inequality that it is at most the mean of the members'. Log-probabilities of
    -1000 must not become -inf.

    Args:
        log_probabilities: Log-probabilities of M members, (M, N, C).
        labels: Classes, (N,).

    Source: Lakshminarayanan, Pritzel & Blundell 2017 (arXiv:1612.01474).
    """
    raise NotImplementedError
