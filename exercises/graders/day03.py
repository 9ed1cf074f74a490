"""Grader of day 3."""

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def _inputs():
    return 3 * expect.normal(5, 4) + 2, expect.normal(4, seed=1), expect.normal(4, seed=2)


def _reference(x, gamma, beta):
    x, gamma, beta = (torch.from_numpy(array).requires_grad_() for array in (x, gamma, beta))
    return F.batch_norm(x, None, None, gamma, beta, training=True), (x, gamma, beta)


def normalized_values(batch_norm):
    x, gamma, beta = _inputs()
    right = _reference(x, gamma, beta)[0].detach().numpy()
    unbiased = gamma * (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + 1e-5) + beta
    rows = gamma * (x - x.mean(1)[:, None]) / np.sqrt(x.var(1)[:, None] + 1e-5) + beta
    mistakes = {
        "use the biased variance, divided by N.": unbiased,
        "normalize over the batch, axis 0; over axis 1 it is layer norm.": rows,
        "divide by the standard deviation, not by the variance.": gamma
        * (x - x.mean(0))
        / (x.var(0) + 1e-5)
        + beta,
    }
    expect.close(expect.unchanged(batch_norm, x, gamma, beta), right, mistakes)


def constant_feature(batch_norm):
    x = np.ones((4, 2))
    with np.errstate(all="ignore"):
        result = batch_norm(x, np.ones(2), np.zeros(2))
    expect.true(
        np.isfinite(result).all(), "a constant feature gives nan.", "add eps to the variance."
    )


def gradient_of_the_input(batch_norm_backward):
    x, gamma, beta = _inputs()
    dy = expect.normal(5, 4, seed=3)
    y, (inputs, _, _) = _reference(x, gamma, beta)
    y.backward(torch.from_numpy(dy))
    std = np.sqrt(x.var(0) + 1e-5)
    normalized = (x - x.mean(0)) / std
    centered = dy - dy.mean(0)
    mistakes = {
        "mean and variance depend on x: two terms are missing.": gamma / std * dy,
        "the term of the variance is missing.": gamma / std * centered,
        "the term of the mean is missing.": gamma
        / std
        * (dy - normalized * (dy * normalized).mean(0)),
        "the factor gamma is missing.": (centered - normalized * (dy * normalized).mean(0)) / std,
        "average over the batch, do not sum.": gamma
        / std
        * (dy - dy.sum(0) - normalized * (dy * normalized).sum(0)),
    }
    result = expect.parts(batch_norm_backward(dy, x, gamma), 3)[0]
    expect.close(result, inputs.grad.numpy(), mistakes, "dx")


def gradients_of_scale_and_shift(batch_norm_backward):
    x, gamma, beta = _inputs()
    dy = expect.normal(5, 4, seed=3)
    y, (_, scale, shift) = _reference(x, gamma, beta)
    y.backward(torch.from_numpy(dy))
    _, dgamma, dbeta = expect.parts(batch_norm_backward(dy, x, gamma), 3)
    mistakes = {
        "dgamma needs the normalized input.": (dy * x).sum(0),
        "sum over the batch instead of averaging: the loss holds the 1/N.": scale.grad.numpy() / 5,
    }
    expect.close(dgamma, scale.grad.numpy(), mistakes, "dgamma")
    sum_hint = {"sum over the batch instead of averaging: the loss holds the 1/N.": dy.mean(0)}
    expect.close(dbeta, shift.grad.numpy(), sum_hint, "dbeta")


def running_statistics(update_running_statistics):
    layer = torch.nn.BatchNorm1d(3, momentum=0.2).double()
    mean, var = np.zeros(3), np.ones(3)
    for seed in range(3):
        x = expect.normal(4, 3, seed=seed) + seed
        biased = 0.8 * var + 0.2 * x.var(0)
        swapped = 0.2 * mean + 0.8 * x.mean(0)
        mean, var = expect.parts(update_running_statistics(mean, var, x, 0.2), 2)
        layer(torch.from_numpy(x))
        hint = {"momentum is the weight of the new batch, not of the old value.": swapped}
        expect.close(mean, layer.running_mean.numpy(), hint, "the mean")
        hint = {"PyTorch stores the unbiased variance, ddof=1.": biased}
        expect.close(var, layer.running_var.numpy(), hint, "the variance")


def dropout_values(dropout):
    x = expect.normal(200, 50) + 5
    result = dropout(x, 0.3, np.random.default_rng(0))
    expect.true(
        result.shape == x.shape, f"the result has shape {result.shape}, expected {x.shape}."
    )
    kept = result != 0
    hint = (
        "p is the probability of 0, not of keeping a value."
        if abs(kept.mean() - 0.3) < 0.02
        else ""
    )
    expect.true(
        abs(kept.mean() - 0.7) < 0.02,
        f"{kept.mean():.0%} of the values are kept, expected 70%.",
        hint,
    )
    mistakes = {
        "divide by 1 - p, so that the expectation is x.": x[kept],
        "divide by 1 - p instead of multiplying.": x[kept] * 0.7,
        "divide by 1 - p, not by p.": x[kept] / 0.3,
    }
    expect.close(result[kept], x[kept] / 0.7, mistakes, "a value that is kept")


def dropout_limits(dropout):
    x = expect.normal(3, 4)
    rng = np.random.default_rng(0)
    expect.close(dropout(x, 0.0, rng), x, name="the result for p = 0")
    with np.errstate(all="ignore"):
        none = dropout(x, 1.0, rng)
    expect.close(
        none,
        np.zeros_like(x),
        {"0 / 0 is nan: treat p = 1 apart.": np.full_like(x, np.nan)},
        "the result for p = 1",
    )


def dropout_is_independent(dropout):
    kept = dropout(np.ones((400, 20)), 0.5, np.random.default_rng(1)) != 0
    shared = (kept == kept[:, :1]).all() or (kept == kept[:1]).all()
    expect.true(
        not shared,
        "whole rows or columns are dropped.",
        "draw one number per value: rng.random(x.shape).",
    )


def _pytorch_rates(losses, lr, factor, patience):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=0.0
    )
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def learning_rates(plateau_learning_rates):
    losses = [1.0, 0.8, 0.9, 0.8, 0.85, 0.85, 0.7, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76]
    right = _pytorch_rates(losses, 1.0, 0.5, 2)
    mistakes = {
        "the rate falls after more than `patience` bad epochs.": _pytorch_rates(
            losses, 1.0, 0.5, 1
        ),
    }
    result = plateau_learning_rates(losses, 1.0, 0.5, 2)
    expect.close(np.array(result), right, mistakes)


def equal_losses_are_bad(plateau_learning_rates):
    right = _pytorch_rates([0.5] * 5, 1.0, 0.1, 1)
    hint = {
        "an equal loss is not an improvement.": np.ones(5),
        "counting starts again at 0 after a reduction.": np.array([1, 1, 0.1, 0.01, 0.001]),
    }
    expect.close(np.array(plateau_learning_rates([0.5] * 5, 1.0, 0.1, 1)), right, hint)


TASKS = [
    Task("batch_norm", [normalized_values, constant_feature]),
    Task("batch_norm_backward", [gradient_of_the_input, gradients_of_scale_and_shift]),
    Task("update_running_statistics", [running_statistics]),
    Task("dropout", [dropout_values, dropout_limits, dropout_is_independent]),
    Task("plateau_learning_rates", [learning_rates, equal_losses_are_bad]),
]
