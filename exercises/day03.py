"""Day 3: batch normalization with its backward pass, dropout, a schedule by plateaus."""

import numpy as np


def batch_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Return the batch normalization of training.

        y = gamma · (x - mean) / √(var + eps) + beta

    with mean and biased variance over the batch.

    Args:
        x: Array of shape (N, D).
        gamma: Scales of shape (D,).
        beta: Shifts of shape (D,).
        eps: Added to the variance.

    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 1.
    """
    raise NotImplementedError


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients (dx, dgamma, dbeta) of a loss with respect to the inputs of batch_norm.

    Mean and variance depend on every sample of the batch, so dx has three terms. Derive

        dx = gamma / √(var + eps) · (dy - mean(dy) - x̂ · mean(dy · x̂)),  x̂ = (x - mean) / √(var +
        eps)

    Args:
        dy: Gradient of the loss with respect to y, (N, D).
        x: Input of the forward pass, (N, D).
        gamma: Scales of shape (D,).
        eps: Added to the variance.

    Source: Ioffe & Szegedy 2015, section 3.
    """
    raise NotImplementedError


def update_running_statistics(
    mean: np.ndarray, var: np.ndarray, x: np.ndarray, momentum: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the running mean and variance that batch normalization uses in evaluation.

    As in PyTorch: the new batch has weight `momentum`, and its variance is the unbiased one.

    Args:
        mean: Running mean of shape (D,).
        var: Running variance of shape (D,).
        x: Batch of shape (N, D), N > 1.
        momentum: Weight of the new batch.
    """
    raise NotImplementedError


def dropout(x: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    """Return x with each value set to 0 with probability p, in the form that evaluation needs no
    scale.

    Choose the factor of the other values so that the expectation of the result is x.

    Args:
        x: Array of any shape.
        p: Probability of 0, 0 <= p <= 1; p = 1 gives zeros.
        rng: Source of random numbers; one per value.

    Source: Srivastava et al. 2014, section 10 ("inverted dropout").
    """
    raise NotImplementedError


def plateau_learning_rates(
    losses: list[float], lr: float, factor: float = 0.1, patience: int = 2
) -> list[float]:
    """Return the learning rate after each epoch with the rule of ReduceLROnPlateau.

    An epoch is bad if its loss is not below the best loss so far. After more than `patience` bad
    epochs in a row the rate is multiplied by `factor`, and counting starts again at 0.

    Args:
        losses: Validation loss of each epoch.
        lr: Initial learning rate.
        factor: Factor of each reduction.
        patience: Number of bad epochs that are accepted.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau with threshold 0.
    """
    raise NotImplementedError
