"""Day 4: momentum, RMSprop, Adam, and the best rates for a quadratic loss."""

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
    """Return (weight, velocity) after a step of SGD with momentum, in PyTorch's form.

        v ← momentum · v + g
        w ← w - lr · v                       (Nesterov: w ← w - lr · (g + momentum · v))

    Args:
        weight: Weights of any shape.
        gradient: Gradient of the loss, same shape.
        velocity: State, same shape; zeros before the first step.
        lr: Learning rate.
        momentum: Decay of the velocity.
        nesterov: Whether to use Nesterov's form.

    Source: Sutskever et al. 2013, On the importance of initialization and momentum.
    """
    raise NotImplementedError


def rmsprop_step(
    weight: np.ndarray,
    gradient: np.ndarray,
    square: np.ndarray,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
) -> Arrays2:
    """Return (weight, square) after a step of RMSprop.

        s ← alpha · s + (1 - alpha) · g²
        w ← w - lr · g / (√s + eps)

    Args:
        weight: Weights of any shape.
        gradient: Gradient of the loss, same shape.
        square: Running mean of the squared gradient; zeros before the first step.
        lr: Learning rate.
        alpha: Decay of the running mean.
        eps: Added to the root.

    Source: Tieleman & Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning.
    """
    raise NotImplementedError


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
    """Return (weight, mean, square) after a step of Adam with decoupled weight decay.

        m ← β₁ m + (1 - β₁) g        m̂ = m / (1 - β₁^t)
        s ← β₂ s + (1 - β₂) g²       ŝ = s / (1 - β₂^t)
        w ← w - lr · weight_decay · w - lr · m̂ / (√ŝ + eps)

    Show first that E[m] = (1 - β₁^t) E[g] for a stationary gradient; that is why m is divided.

    Args:
        weight: Weights of any shape.
        gradient: Gradient of the loss, same shape.
        mean: Running mean m; zeros before the first step.
        square: Running mean of squares s; zeros before the first step.
        step: Number t of this step, 1 for the first.
        lr: Learning rate.
        betas: β₁ and β₂.
        eps: Added to the root.
        weight_decay: Decay of the weights; not part of the gradient.

    Source: Kingma & Ba 2015 (arXiv:1412.6980), Loshchilov & Hutter 2019 (arXiv:1711.05101).
    """
    raise NotImplementedError


def largest_learning_rate(hessian: np.ndarray) -> float:
    """Return the rate above which gradient descent diverges on 1/2 wᵀ H w.

    Write the step in the eigenbasis of H: each component is multiplied by 1 - lr · λ.

    Args:
        hessian: Symmetric positive definite matrix (D, D).

    Source: Goh 2017, Why momentum really works (Distill).
    """
    raise NotImplementedError


def heavy_ball_parameters(hessian: np.ndarray) -> tuple[float, float]:
    """Return the best (lr, momentum) of `momentum_step` without Nesterov on 1/2 wᵀ H w.

        lr = (2 / (√λ_max + √λ_min))²,  momentum = ((√κ - 1) / (√κ + 1))²,  κ = λ_max / λ_min

    Derive them: of the 2 x 2 iteration matrix of each eigenvalue both eigenvalues are complex, of
    absolute value √momentum, as long as (1 - √(lr λ))² <= momentum.

    Args:
        hessian: Symmetric positive definite matrix (D, D).

    Source: Polyak 1964; Goh 2017, Why momentum really works (Distill).
    """
    raise NotImplementedError
