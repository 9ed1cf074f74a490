"""Grader of day 18."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def fitted_probabilities(naive_bayes):
    counts, labels = (
        np.array([[2, 1, 0, 0], [0, 3, 1, 0], [1, 0, 0, 2], [0, 0, 1, 1]]),
        np.array([0, 0, 1, 0]),
    )
    prior, likelihood = expect.parts(naive_bayes(counts, labels, 0.5), 2)
    expect.close(
        prior,
        np.log([0.75, 0.25]),
        {"return logarithms.": np.array([0.75, 0.25]), "the prior is N_c / N.": np.log([0.5, 0.5])},
        "log p(c)",
    )
    totals = np.array([[2, 4, 2, 1], [1, 0, 0, 2]])
    right = np.array([[math.log((n + 0.5) / (row.sum() + 2)) for n in row] for row in totals])
    presence = np.array([[1, 2, 2, 1], [1, 0, 0, 1]])
    mistakes = {
        "return logarithms.": np.exp(right),
        "the denominator needs α V: probabilities must add up to 1.": np.log(
            (totals + 0.5) / totals.sum(1, keepdims=True)
        ),
        "use α, not 1.": np.log((totals + 1) / (totals.sum(1, keepdims=True) + 4)),
        "count all occurrences, not texts.": np.log(
            (presence + 0.5) / (presence.sum(1, keepdims=True) + 2)
        ),
        "normalize over the words of a class.": np.log((totals + 0.5) / (totals + 0.5).sum(0)),
    }
    expect.close(likelihood, right, mistakes, "log p(w | c)")


def words_that_a_class_lacks(naive_bayes):
    with np.errstate(all="ignore"):
        likelihood = expect.parts(naive_bayes(np.array([[5, 0], [0, 5]]), np.array([0, 1])), 2)[1]
    expect.true(
        np.isfinite(likelihood).all(),
        "an unseen word has the log-probability -inf.",
        "add α to every count.",
    )
    expect.close(
        np.exp(likelihood).sum(1), np.ones(2), name="the sum of the probabilities of a class"
    )


def _activations(embedded, weight, bias):
    return F.conv1d(embedded.mT, weight.mT, bias).relu()  # (B, F, windows)


def activations_of_full_texts(max_over_time):
    embedded, weight, bias = (
        expect.randn(2, 6, 4),
        expect.randn(3, 2, 4, seed=1),
        expect.randn(3, seed=2),
    )
    mask = torch.ones(2, 6, dtype=torch.bool)
    right = _activations(embedded, weight, bias).amax(2)
    flipped = _activations(embedded, weight.flip(1), bias).amax(2)
    mistakes = {
        "take the maximum, not the mean.": _activations(embedded, weight, bias).mean(2),
        "the bias is missing.": _activations(embedded, weight, 0 * bias).amax(2),
        "the first word of a window belongs to the first row of the filter.": flipped,
        "ReLU is missing.": F.conv1d(embedded.mT, weight.mT, bias).amax(2),
    }
    expect.close(max_over_time(embedded, weight, bias, mask), right, mistakes)


def activations_of_padded_texts(max_over_time):
    embedded, weight, bias = (
        expect.randn(3, 6, 4),
        expect.randn(3, 2, 4, seed=1),
        expect.randn(3, seed=2),
    )
    lengths = [6, 3, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    rows = [
        _activations(embedded[i : i + 1, :n], weight, bias).amax(2)[0]
        if n >= 2
        else torch.zeros(3, dtype=torch.float64)
        for i, n in enumerate(lengths)
    ]
    started = _activations(embedded, weight, bias) * mask[:, None, :5]
    mistakes = {
        "windows with padding must not count.": _activations(embedded, weight, bias).amax(2),
        "all words of a window must be in the text, not only its first.": started.amax(2),
        "zeroed word vectors are not enough: such windows have the bias.": _activations(
            embedded * mask[..., None], weight, bias
        ).amax(2),
    }
    expect.close(max_over_time(embedded, weight, bias, mask), torch.stack(rows), mistakes)


def gradient_of_the_maximum(max_over_time):
    weight, bias = expect.randn(2, 2, 3, seed=1), expect.randn(2, seed=2) + 1
    mask = torch.tensor([[True, True, True, False]])
    embedded = expect.randn(1, 4, 3).requires_grad_()
    right = torch.autograd.gradcheck(
        lambda x: max_over_time(x, weight, bias, mask), embedded, raise_exception=False
    )
    expect.true(right, "the gradient is wrong.", "use differentiable functions of torch.")


def weights_of_classes(balanced_weights):
    labels = np.array([0] * 6 + [1] * 3 + [3] * 1)
    right = np.array([10 / 18, 10 / 9, 0, 10 / 3])
    mistakes = {
        "the mean weight of a sample should be 1: divide by the number of classes.": np.array(
            [10 / 6, 10 / 3, 0, 10]
        ),
        "count the classes that occur only.": right * 3 / 4,
        "rare classes have the larger weights.": np.array([0.6, 0.3, 0, 0.1]),
    }
    with np.errstate(all="ignore"):
        found = balanced_weights(labels, 4)
    finite = np.isfinite(found).all()
    expect.true(
        finite,
        "a class without samples has the weight inf or nan.",
        "a class without samples has weight 0.",
    )
    expect.close(found, right, mistakes)


TASKS = [
    Task("naive_bayes", [fitted_probabilities, words_that_a_class_lacks]),
    Task(
        "max_over_time",
        [activations_of_full_texts, activations_of_padded_texts, gradient_of_the_maximum],
    ),
    Task("balanced_weights", [weights_of_classes]),
]
