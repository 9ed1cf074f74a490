"""Day 5: back-propagation with NumPy, and checking it."""

from collections.abc import Callable

import numpy as np


def linear_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients (dx, dweight, dbias) of y = x · weight + bias.

    Derive them by indices from dL = Σ_nj dy_nj dy_nj(x, weight, bias); the shapes then confirm
    them.

    Args:
        dy: Gradient of the loss with respect to y, (N, O).
        x: Input, (N, I).
        weight: Weight, (I, O).

    Source: Goodfellow, Bengio & Courville, Deep Learning, section 6.5.
    """
    raise NotImplementedError


def relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient of y = max(x, 0) with respect to x; at x = 0 it is 0, as in PyTorch.

    Args:
        dy: Gradient of the loss with respect to y, any shape.
        x: Input of the forward pass, same shape.
    """
    raise NotImplementedError


def softmax_cross_entropy_backward(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the gradient of the mean cross-entropy of softmax(scores) with respect to the scores.

    Derive it without the Jacobian of the softmax: loss = 1/N Σ_n (log Σ_j exp(s_nj) - s_n,y_n).

    Args:
        scores: Array of shape (N, C); up to 1e4.
        labels: Integers from 0 to C - 1, of shape (N,).

    Returns:
        Array of shape (N, C).
    """
    raise NotImplementedError


def mlp_gradients(
    x: np.ndarray, labels: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the gradients of all weights and biases of an MLP with ReLU between its layers.

        h_0 = x,  h_l = relu(h_l-1 · W_l + b_l),  scores = h_L-1 · W_L + b_L

    The loss is the mean cross-entropy. There may be any number of layers, also one.

    Args:
        x: Input, (N, D).
        labels: Classes, (N,).
        weights: Weights of the layers, (D, H), (H, …), …, (…, C).
        biases: Biases of the layers, (H,), …, (C,).

    Source: Rumelhart, Hinton & Williams 1986, Learning representations by back-propagating errors.
    """
    raise NotImplementedError


def gradient_error(
    function: Callable[[np.ndarray], float],
    gradient: np.ndarray,
    x: np.ndarray,
    step: float = 1e-5,
) -> float:
    """Return the largest relative error of a gradient against central differences.

        numeric_i = (f(x + h e_i) - f(x - h e_i)) / 2h
        error = max_i |gradient_i - numeric_i| / max(|gradient_i| + |numeric_i|, 1e-8)

    Central differences have an error of O(h²), one-sided ones of O(h). x must be unchanged
    afterwards.

    Args:
        function: Scalar function of an array of the shape of x.
        gradient: Gradient to check, of the shape of x.
        x: Where to check, float64.
        step: The step h.
    """
    raise NotImplementedError
