"""Solutions of day 5."""

from collections.abc import Callable

import numpy as np


def linear_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return dy @ weight.T, x.T @ dy, dy.sum(axis=0)


def relu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    return dy * (x > 0)


def softmax_cross_entropy_backward(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    gradient = exponentials / exponentials.sum(axis=1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)


def mlp_gradients(
    x: np.ndarray, labels: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    inputs, sums = [x], []
    for weight, bias in zip(weights, biases, strict=True):
        sums.append(inputs[-1] @ weight + bias)
        inputs.append(np.maximum(sums[-1], 0))
    dy = softmax_cross_entropy_backward(sums[-1], labels)
    dweights: list[np.ndarray] = []
    dbiases: list[np.ndarray] = []
    for layer in reversed(range(len(weights))):
        dx, dweight, dbias = linear_backward(dy, inputs[layer], weights[layer])
        dweights.insert(0, dweight)
        dbiases.insert(0, dbias)
        if layer > 0:
            dy = relu_backward(dx, sums[layer - 1])
    return dweights, dbiases


def gradient_error(
    function: Callable[[np.ndarray], float],
    gradient: np.ndarray,
    x: np.ndarray,
    step: float = 1e-5,
) -> float:
    worst = 0.0
    for index in np.ndindex(x.shape):
        forward, backward = x.copy(), x.copy()
        forward[index] += step
        backward[index] -= step
        numeric = (function(forward) - function(backward)) / (2 * step)
        scale = max(float(abs(gradient[index]) + abs(numeric)), 1e-8)
        error = float(abs(gradient[index] - numeric) / scale)
        worst = max(worst, error)
    return worst
