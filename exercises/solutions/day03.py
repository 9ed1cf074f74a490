"""Solutions of day 3."""

import numpy as np


def batch_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    normalized = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)
    return gamma * normalized + beta


def batch_norm_backward(
    dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    std = np.sqrt(x.var(axis=0) + eps)
    normalized = (x - x.mean(axis=0)) / std
    dgamma, dbeta = (dy * normalized).sum(axis=0), dy.sum(axis=0)
    dx = gamma / std * (dy - dbeta / len(x) - normalized * dgamma / len(x))
    return dx, dgamma, dbeta


def update_running_statistics(
    mean: np.ndarray, var: np.ndarray, x: np.ndarray, momentum: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    new_mean = (1 - momentum) * mean + momentum * x.mean(axis=0)
    new_var = (1 - momentum) * var + momentum * x.var(axis=0, ddof=1)
    return new_mean, new_var


def dropout(x: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    if p == 1:
        return np.zeros_like(x)
    return x * (rng.random(x.shape) >= p) / (1 - p)


def plateau_learning_rates(
    losses: list[float], lr: float, factor: float = 0.1, patience: int = 2
) -> list[float]:
    rates: list[float] = []
    best, bad_epochs = float("inf"), 0
    for loss in losses:
        if loss < best:
            best, bad_epochs = loss, 0
        else:
            bad_epochs += 1
        if bad_epochs > patience:
            lr, bad_epochs = lr * factor, 0
        rates.append(lr)
    return rates
