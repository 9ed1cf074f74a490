"""Grader of day 4."""

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def _pytorch_weights(optimizer_class, steps=3, **options):
    """Return the weights after each step of an optimizer on given gradients."""
    weight = torch.nn.Parameter(expect.randn(4))
    optimizer = optimizer_class([weight], **options)
    weights = []
    for step in range(steps):
        weight.grad = expect.randn(4, seed=step + 1)
        optimizer.step()
        weights.append(weight.detach().numpy().copy())
    return weights


def _check(step_function, number_of_states, right, mistakes=(), **options):
    """Compare the weights after each step; `mistakes` are hints with weights of each step."""
    weight, states = expect.normal(4), [np.zeros(4)] * number_of_states
    for step, expected in enumerate(right):
        gradient = expect.normal(4, seed=step + 1)
        wrong = [(hint, weights[step]) for hint, weights in mistakes]
        counted = {"step": step + 1} if number_of_states == 2 else {}
        arguments = (weight, gradient, *states)
        result = expect.unchanged(
            lambda *a, counted=counted: step_function(*a, **counted, **options), *arguments
        )
        weight, *states = expect.parts(result, number_of_states + 1)
        expect.close(weight, expected, wrong, f"the weight after step {step + 1}")


def momentum(momentum_step):
    right = _pytorch_weights(torch.optim.SGD, lr=0.1, momentum=0.8)
    damped = _pytorch_weights(torch.optim.SGD, lr=0.1, momentum=0.8, dampening=0.8)
    first = expect.normal(4) - 0.1 * 0.2 * expect.normal(4, seed=1)
    damped[0] = first  # PyTorch does not dampen the first step
    plain = _pytorch_weights(torch.optim.SGD, lr=0.1)
    mistakes = [
        ("PyTorch adds the gradient without the factor 1 - momentum.", damped),
        ("step by the new velocity, not by the gradient.", plain),
        ("update the velocity before the weight.", [expect.normal(4)] * 3),
    ]
    _check(momentum_step, 1, right, mistakes, lr=0.1, momentum=0.8)


def nesterov(momentum_step):
    right = _pytorch_weights(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=True)
    classic = _pytorch_weights(torch.optim.SGD, lr=0.1, momentum=0.8)
    mistakes = [("Nesterov steps by g + momentum · v with the new v.", classic)]
    _check(momentum_step, 1, right, mistakes, lr=0.1, momentum=0.8, nesterov=True)


def rmsprop(rmsprop_step):
    right = _pytorch_weights(torch.optim.RMSprop, lr=0.1, alpha=0.9)
    start, gradient = expect.normal(4), expect.normal(4, seed=1)
    wrong = {
        "divide by the root of the mean square.": gradient / (0.1 * gradient**2 + 1e-8),
        "the new square has the weight 1 - alpha.": gradient / (np.sqrt(0.9 * gradient**2) + 1e-8),
        "update the mean square before dividing by it.": gradient / 1e-8,
    }
    mistakes = [(hint, [start - 0.1 * update] * 3) for hint, update in wrong.items()]
    _check(rmsprop_step, 1, right, mistakes, lr=0.1, alpha=0.9)


def rmsprop_with_a_zero_gradient(rmsprop_step):
    zeros = np.zeros(2)
    with np.errstate(all="ignore"):
        weight, _ = expect.parts(rmsprop_step(np.ones(2), zeros, zeros, lr=0.1), 2)
    hint = "0 / 0 is nan: add eps to the root."
    expect.close(weight, np.ones(2), {hint: np.full(2, np.nan)}, "the weight")


def adam(adamw_step):
    right = _pytorch_weights(torch.optim.Adam, lr=0.1, betas=(0.8, 0.95))
    start, gradient = expect.normal(4), expect.normal(4, seed=1)
    sign = np.sign(gradient)
    wrong = {
        "both bias corrections are missing.": sign * 0.2 / np.sqrt(0.05),
        "the bias correction of the mean is missing.": sign * 0.2,
        "the bias correction of the square is missing.": sign / np.sqrt(0.05),
    }
    mistakes = [(hint, [start - 0.1 * update] * 3) for hint, update in wrong.items()]
    constant = [right[0], *[np.nan * right[0]] * 2]
    _check(adamw_step, 2, right, [*mistakes, ("", constant)], lr=0.1, betas=(0.8, 0.95))


def adam_correction_at_later_steps(adamw_step):
    mean, square = np.full(2, 0.5), np.full(2, 0.25)
    weight = adamw_step(np.zeros(2), np.full(2, 0.5), mean, square, 1000, lr=1.0)[0]
    hint = "raise β to the power t, as in 1 - β^t."
    early = -np.ones(2) * (0.5 / 0.1) / np.sqrt(0.25 / 0.001)
    right = -np.ones(2) / np.sqrt(1 / (1 - 0.999**1000))
    expect.close(weight, right, {hint: early}, "the weight after step 1000", rtol=1e-5)


def decoupled_weight_decay(adamw_step):
    options = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.3}
    right = _pytorch_weights(torch.optim.AdamW, **options)
    coupled = _pytorch_weights(torch.optim.Adam, **options)
    undecayed = _pytorch_weights(torch.optim.Adam, lr=0.1, betas=(0.8, 0.95))
    hint = "subtract lr · weight_decay · w; as a part of the gradient Adam would rescale it."
    mistakes = [(hint, coupled), (hint, undecayed)]
    _check(adamw_step, 2, right, mistakes, **options)


def _hessian(eigenvalues):
    basis, _ = np.linalg.qr(expect.normal(len(eigenvalues), len(eigenvalues)))
    return basis @ np.diag(eigenvalues) @ basis.T


def divergence(largest_learning_rate):
    mistakes = {
        "|1 - lr λ| < 1 gives lr < 2 / λ, not 1 / λ.": 1 / 8,
        "the largest eigenvalue diverges first.": 2 / 0.5,
        "2 / (λ_max + λ_min) is the best rate, not the largest.": 2 / 8.5,
    }
    expect.close(largest_learning_rate(_hessian([0.5, 2.0, 8.0])), 0.25, mistakes)


def heavy_ball(heavy_ball_parameters):
    lr, momentum = expect.parts(heavy_ball_parameters(_hessian([1.0, 4.0, 9.0])), 2)
    mistakes = {"use the roots of the eigenvalues.": (2 / 10) ** 2, "square the result.": 0.5}
    expect.close(lr, 0.25, mistakes, "lr")
    mistakes = {"κ needs its root.": (8 / 10) ** 2, "square the result.": 0.5}
    expect.close(momentum, 0.25, mistakes, "momentum")


def heavy_ball_converges(heavy_ball_parameters):
    hessian = _hessian([0.01, 0.2, 1.0])
    lr, momentum = expect.parts(heavy_ball_parameters(hessian), 2)
    weight, velocity = np.ones(3), np.zeros(3)
    for _ in range(200):
        velocity = momentum * velocity + hessian @ weight
        weight = weight - lr * velocity
    norm = float(np.linalg.norm(weight))
    expect.true(norm < 1e-12, f"after 200 steps the norm of w is {norm:.1e}, expected below 1e-12.")


TASKS = [
    Task("momentum_step", [momentum, nesterov]),
    Task("rmsprop_step", [rmsprop, rmsprop_with_a_zero_gradient]),
    Task("adamw_step", [adam, adam_correction_at_later_steps, decoupled_weight_decay]),
    Task("largest_learning_rate", [divergence]),
    Task("heavy_ball_parameters", [heavy_ball, heavy_ball_converges]),
]
