"""Solutions of day 4."""

import numpy as np

Arrays2 = tuple[np.ndarray, np.ndarray]
Arrays3 = tuple[np.ndarray, np.ndarray, np.ndarray]


def momentum_step(
    weight: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> Arrays2:
    velocity = momentum * velocity + gradient
    update = gradient + momentum * velocity if nesterov else velocity
    return weight - lr * update, velocity


def rmsprop_step(
    weight: np.ndarray,
    gradient: np.ndarray,
    square: np.ndarray,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
) -> Arrays2:
    square = alpha * square + (1 - alpha) * gradient**2
    return weight - lr * gradient / (np.sqrt(square) + eps), square


def adamw_step(
    weight: np.ndarray,
    gradient: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Arrays3:
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    square = betas[1] * square + (1 - betas[1]) * gradient**2
    unbiased_mean = mean / (1 - betas[0] ** step)
    unbiased_square = square / (1 - betas[1] ** step)
    update = unbiased_mean / (np.sqrt(unbiased_square) + eps) + weight_decay * weight
    return weight - lr * update, mean, square


def largest_learning_rate(hessian: np.ndarray) -> float:
    return float(2 / np.linalg.eigvalsh(hessian)[-1])


def heavy_ball_parameters(hessian: np.ndarray) -> tuple[float, float]:
    eigenvalues = np.linalg.eigvalsh(hessian)
    small, large = np.sqrt(eigenvalues[0]), np.sqrt(eigenvalues[-1])
    return float((2 / (large + small)) ** 2), float(((large - small) / (large + small)) ** 2)
