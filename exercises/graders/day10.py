"""Grader of day 10."""

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def smoothed_loss(smoothed_cross_entropy):
    logits, labels = expect.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    right = F.cross_entropy(logits, labels, label_smoothing=0.2)
    usual, uniform = F.cross_entropy(logits, labels), -logits.log_softmax(1).mean()
    others = torch.full((6, 4), 0.2 / 3, dtype=torch.float64).scatter(1, labels[:, None], 0.8)
    mistakes = {
        "the label gets its part of ε, too: ε / C for all classes.": F.cross_entropy(
            logits, others
        ),
        "smoothing is missing.": usual,
        "divide the sum over classes by C.": 0.8 * usual + 0.2 * 4 * uniform,
        "the usual loss has the factor 1 - ε.": usual + 0.2 * uniform,
    }
    expect.close(smoothed_cross_entropy(logits, labels, 0.2), right, mistakes)
    expect.close(smoothed_cross_entropy(logits, labels, 0.0), usual, name="the result for ε = 0")


def gradient_of_the_smoothed_loss(smoothed_cross_entropy):
    gradients = []
    for function in (
        lambda x, y: smoothed_cross_entropy(x, y, 0.1),
        lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1),
    ):
        logits = (1000 * expect.randn(3, 5)).requires_grad_()
        function(logits, torch.tensor([0, 4, 2])).backward()
        gradients.append(logits.grad)
    expect.close(
        gradients[0],
        gradients[1],
        {"use log_softmax: log of a softmax loses precision.": torch.full((3, 5), torch.nan)},
        "the gradient",
    )


def rates_of_a_cycle(one_cycle):
    steps = [0, 15, 30, 65, 100]
    result = np.array([float(one_cycle(step, 100, 2.0)) for step in steps])
    mistakes = {
        "the rate falls over the remaining steps: divide by 1 - warmup.": np.array(
            [0, 1, 1.4, 0.7, 0.0]
        ),
        "the peak is at warmup · total_steps.": np.array([0, 0.6, 1.2, 1.4, 0.0]),
    }
    expect.close(result, np.array([0, 1, 2, 1, 0.0]), mistakes, f"the rate at the steps {steps}")


def cycle_without_warmup(one_cycle):
    expect.close(one_cycle(0, 10, 0.5, 0.0), 0.5)
    expect.close(one_cycle(5, 10, 0.5, 0.0), 0.25)


def shifted_images(shift):
    images = np.arange(1.0, 41.0).reshape(2, 4, 5)
    for down, right in ((1, 2), (-1, 0), (0, -2), (-2, 3), (0, 0)):
        expected = np.zeros_like(images)
        for i in range(4):
            for j in range(5):
                if 0 <= i - down < 4 and 0 <= j - right < 5:
                    expected[:, i, j] = images[:, i - down, j - right]
        mistakes = {
            "pixels that leave must not enter on the other side: np.roll needs zeros.": np.roll(
                images, (down, right), (1, 2)
            ),
        }
        swapped = np.zeros_like(images)
        for i in range(4):
            for j in range(5):
                if 0 <= i + down < 4 and 0 <= j + right < 5:
                    swapped[:, i, j] = images[:, i + down, j + right]
        mistakes["the image moves in the opposite direction."] = swapped
        expect.close(
            expect.unchanged(lambda x, d=down, r=right: shift(x, d, r), images),
            expected,
            mistakes,
            f"the shift by {down} and {right}",
        )


def shift_out_of_the_image(shift):
    expect.close(
        shift(np.ones((1, 3, 3)), 5, 0),
        np.zeros((1, 3, 3)),
        name="the shift by more than the height",
    )
    expect.close(
        shift(np.ones((1, 3, 3)), 0, -3), np.zeros((1, 3, 3)), name="the shift by the width"
    )


def likelihood_of_an_ensemble(ensemble_nll):
    logits = 2 * expect.normal(3, 5, 4)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = np.array([0, 1, 2, 3, 1])
    chosen = log_p[:, np.arange(5), labels]
    right = -np.log(np.exp(chosen).mean(0)).mean()
    geometric = log_p.mean(0) - np.log(np.exp(log_p.mean(0)).sum(-1, keepdims=True))
    mistakes = {
        "average probabilities, not log-probabilities.": -chosen.mean(),
        "this is the normalized geometric mean; average probabilities.": -geometric[
            np.arange(5), labels
        ].mean(),
        "divide by the number of members.": -np.log(np.exp(chosen).sum(0)).mean(),
    }
    expect.close(ensemble_nll(log_p, labels), right, mistakes)


def likelihood_of_confident_members(ensemble_nll):
    with np.errstate(all="ignore"):
        result = ensemble_nll(np.full((2, 1, 2), -1000.0), np.array([0]))
    expect.close(result, 1000.0, {"exp underflows: use the log-sum-exp of the members.": np.inf})


TASKS = [
    Task("smoothed_cross_entropy", [smoothed_loss, gradient_of_the_smoothed_loss]),
    Task("one_cycle", [rates_of_a_cycle, cycle_without_warmup]),
    Task("shift", [shifted_images, shift_out_of_the_image]),
    Task("ensemble_nll", [likelihood_of_an_ensemble, likelihood_of_confident_members]),
]
