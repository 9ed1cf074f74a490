"""Grader of day 5."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def gradients_of_a_linear_layer(linear_backward):
    dy, x, weight = expect.normal(5, 4), expect.normal(5, 3, seed=1), expect.normal(3, 4, seed=2)
    dx, dweight, dbias = expect.parts(linear_backward(dy, x, weight), 3)
    right_dx = expect.numerical_gradient(lambda x: ((x @ weight) * dy).sum(), x)
    right_dw = expect.numerical_gradient(lambda weight: ((x @ weight) * dy).sum(), weight)
    mean = "sum over the batch: the mean belongs to the loss, which divided dy by N."
    expect.close(dx, right_dx, name="dx", rtol=1e-5, atol=1e-7)
    mistakes = {mean: right_dw / 5, "the gradient has the shape of the weight, (I, O).": right_dw.T}
    expect.close(dweight, right_dw, mistakes, "dweight", rtol=1e-5, atol=1e-7)
    expect.close(
        dbias, dy.sum(0), {mean: dy.mean(0), "sum over the batch, axis 0.": dy.sum(1)}, "dbias"
    )


def gradients_of_a_square_layer(linear_backward):
    dy, x, weight = expect.normal(3, 3), expect.normal(3, 3, seed=1), expect.normal(3, 3, seed=2)
    dx, dweight, _ = expect.parts(linear_backward(dy, x, weight), 3)
    expect.close(dx, dy @ weight.T, {"multiply by the transposed weight.": dy @ weight}, "dx")
    hint = "x and dy are exchanged: dweight_ij = Σ_n x_ni dy_nj."
    expect.close(dweight, x.T @ dy, {hint: dy.T @ x}, "dweight")


def gradient_of_relu(relu_backward):
    dy, x = expect.normal(4, 5), expect.normal(4, 5, seed=1)
    mistakes = {
        "the mask comes from the input x, not from dy.": np.maximum(dy, 0),
        "multiply the mask by dy: chain rule.": (x > 0).astype(float),
    }
    expect.close(expect.unchanged(relu_backward, dy, x), dy * (x > 0), mistakes)


def gradient_of_relu_at_zero(relu_backward):
    hint = "at x = 0 the gradient is 0: use x > 0."
    expect.close(relu_backward(np.ones(2), np.zeros(2)), np.zeros(2), {hint: np.ones(2)})


def gradient_of_the_loss(softmax_cross_entropy_backward):
    scores, labels = expect.normal(5, 3), np.array([0, 2, 1, 1, 0])
    tensor = torch.from_numpy(scores).requires_grad_()
    F.cross_entropy(tensor, torch.from_numpy(labels)).backward()
    right = tensor.grad.numpy()
    mistakes = {
        "divide by N: the loss is a mean.": right * 5,
        "subtract 1 at the labels.": torch.softmax(tensor, 1).detach().numpy() / 5,
        "the sign is wrong: probabilities minus one-hot labels.": -right,
    }
    expect.close(softmax_cross_entropy_backward(scores, labels), right, mistakes)


def gradient_of_large_scores(softmax_cross_entropy_backward):
    with np.errstate(all="ignore"):
        result = softmax_cross_entropy_backward(np.array([[1e4, 0.0]]), np.array([1]))
    finite = np.isfinite(result).all()
    expect.true(finite, "scores of 1e4 give nan.", "subtract the maximum of each row before exp.")
    expect.close(result, np.array([[1.0, -1.0]]))


def _check_mlp(mlp_gradients, sizes, mistakes=()):
    weights = [expect.normal(*pair, seed=i) for i, pair in enumerate(pairwise(sizes))]
    biases = [expect.normal(size, seed=i + 9) for i, size in enumerate(sizes[1:])]
    x, labels = expect.normal(7, sizes[0], seed=5), np.arange(7) % sizes[-1]
    tensors = [torch.from_numpy(array).requires_grad_() for array in (*weights, *biases)]
    h = torch.from_numpy(x)
    for layer in range(len(weights)):
        h = h @ tensors[layer] + tensors[len(weights) + layer]
        h = h.relu() if layer < len(weights) - 1 else h
    F.cross_entropy(h, torch.from_numpy(labels)).backward()
    dweights, dbiases = expect.parts(mlp_gradients(x, labels, weights, biases), 2)
    for kind, found, right in (
        ("weight", dweights, tensors[: len(weights)]),
        ("bias", dbiases, tensors[len(weights) :]),
    ):
        count = len(found)
        hint = "the order is that of the layers, first layer first."
        expect.true(
            count == len(weights), f"{count} gradients of a {kind}, expected {len(weights)}."
        )
        for layer, (gradient, tensor) in enumerate(zip(found, right, strict=True)):
            name = f"the gradient of {kind} {layer + 1} of {len(weights)}"
            wrong = [(hint, right[-1 - layer].grad.numpy()), *mistakes]
            expect.close(gradient, tensor.grad.numpy(), wrong, name)


def gradients_of_two_layers(mlp_gradients):
    _check_mlp(mlp_gradients, (4, 6, 3))


def gradients_of_four_layers(mlp_gradients):
    _check_mlp(mlp_gradients, (3, 5, 4, 6, 2))


def gradients_of_one_layer(mlp_gradients):
    try:
        _check_mlp(mlp_gradients, (4, 3))
    except expect.Wrong as error:
        raise expect.Wrong(str(error), "there is no ReLU after the last layer.") from error


def error_of_right_and_wrong_gradients(gradient_error):
    x = expect.normal(2, 3)
    error = expect.unchanged(
        lambda x: gradient_error(lambda y: float(np.sin(y).sum()), np.cos(x), x), x
    )
    hint = "divide by 2h: the two points are 2h apart." if abs(error - 1 / 3) < 1e-3 else ""
    hint = "one-sided differences have an error of O(h)." if 1e-7 < error < 1e-2 else hint
    expect.true(error < 1e-8, f"the error of a right gradient is {error:.1e}.", hint)
    wrong = np.cos(x)
    wrong[1, 2] *= 1.1
    found = gradient_error(lambda y: float(np.sin(y).sum()), wrong, x)
    mistakes = {"take the maximum, not the mean: one wrong entry must show.": 0.1 / 2.1 / 6}
    expect.close(
        found, 0.1 / 2.1, mistakes, "the error of a gradient with one wrong entry", rtol=1e-4
    )


def error_of_a_zero_gradient(gradient_error):
    with np.errstate(all="ignore"):
        error = gradient_error(lambda y: 1.0, np.zeros(3), np.ones(3))
    expect.close(error, 0.0, {"0 / 0 is nan: bound the denominator by 1e-8.": np.nan}, "the error")


TASKS = [
    Task("linear_backward", [gradients_of_a_linear_layer, gradients_of_a_square_layer]),
    Task("relu_backward", [gradient_of_relu, gradient_of_relu_at_zero]),
    Task("softmax_cross_entropy_backward", [gradient_of_the_loss, gradient_of_large_scores]),
    Task(
        "mlp_gradients", [gradients_of_two_layers, gradients_of_four_layers, gradients_of_one_layer]
    ),
    Task("gradient_error", [error_of_right_and_wrong_gradients, error_of_a_zero_gradient]),
]
