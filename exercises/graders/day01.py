"""Grader of day 1."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax as scipy_softmax
from torch import nn

from exercises import expect
from exercises.grading import Task


def softmax_values(softmax):
    scores = expect.normal(4, 5)
    powers, shifted = np.exp(scores), np.exp(scores - scores.max(axis=1, keepdims=True))
    batch = "normalize over the last axis, not over the batch."
    everything = "sum over the last axis only, with keepdims=True."
    mistakes = [
        (batch, powers / powers.sum(axis=0)),
        (batch, shifted / shifted.sum(axis=0)),
        (everything, powers / powers.sum()),
        (everything, shifted / shifted.sum()),
    ]
    expect.close(softmax(scores), scipy_softmax(scores, axis=-1), mistakes)


def softmax_of_more_dimensions(softmax):
    scores = expect.normal(2, 3, 4)
    mistakes = {"use axis=-1: the last axis is not always 1.": scipy_softmax(scores, axis=1)}
    expect.close(softmax(scores), scipy_softmax(scores, axis=-1), mistakes)


def softmax_of_large_scores(softmax):
    with np.errstate(all="ignore"):
        result = softmax(np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 - 1, -1e4 - 2]]))
    expect.true(
        np.isfinite(result).all(),
        "scores of 1e4 give inf or nan.",
        "exp overflows; subtract the maximum of each row first.",
    )
    expect.close(result[0], scipy_softmax([1e4, 1e4 - 1, -1e4]))
    expect.close(result[1], scipy_softmax([0.0, -1.0, -2.0]))


def softmax_keeps_its_input(softmax):
    expect.unchanged(softmax, expect.normal(2, 3))


def cross_entropy_value(cross_entropy):
    scores, labels = expect.normal(6, 4), np.array([0, 3, 2, 1, 1, 0])
    right = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels)).item()
    mistakes = {
        "average over the batch instead of summing.": 6 * right,
        "the log-likelihood is negative; the loss is its negative.": -right,
        "average over samples, not over samples and classes.": right / 4,
    }
    expect.close(cross_entropy(scores, labels), right, mistakes)


def cross_entropy_of_large_scores(cross_entropy):
    scores, labels = np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([1, 1])
    with np.errstate(all="ignore"):
        loss = cross_entropy(scores, labels)
    hint = "the probability underflows to 0; write log p as s - max - log Σ exp(s - max)."
    expect.true(np.isfinite(loss), f"the loss is {loss}, expected 5000.", hint)
    expect.close(loss, 5000.0, {"clipping the probability hides large errors.": -np.log(1e-12) / 2})


def _training(function, batch_size=4, dropout=0.0):
    """Return loss and weights after one epoch over ten samples."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 2)).double()
    net.eval()  # train_epoch must switch to training mode
    images, labels = expect.randn(10, 3), torch.arange(10) % 2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    torch.manual_seed(1)
    loss = function(net, images, labels, optimizer, batch_size)
    return loss, torch.cat([p.detach().flatten() for p in net.parameters()]), net


def _reference(net, images, labels, optimizer, batch_size, zero=True, drop=False, average=False):
    net.train()
    losses, sizes = [], []
    for start in range(0, len(labels), batch_size):
        inputs, targets = images[start : start + batch_size], labels[start : start + batch_size]
        if drop and len(targets) < batch_size:
            break
        if zero:
            optimizer.zero_grad()
        loss = F.cross_entropy(net(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        sizes.append(1 if average else len(targets))
    return float(np.average(losses, weights=sizes))


def _variant(**options):
    return lambda *arguments: _reference(*arguments, **options)


def weights_after_an_epoch(train_epoch):
    mistakes = {
        "call optimizer.zero_grad() in each step: backward() adds to the gradients.": _training(
            _variant(zero=False)
        )[1],
        "the last, smaller batch is missing.": _training(_variant(drop=True))[1],
    }
    expect.close(_training(train_epoch)[1], _training(_reference)[1], mistakes, "the weights")


def loss_of_an_epoch(train_epoch):
    mistakes = {
        "weight each batch by its size: the last one is smaller.": _training(
            _variant(average=True)
        )[0]
    }
    expect.close(_training(train_epoch)[0], _training(_reference)[0], mistakes, "the loss")


def training_mode(train_epoch):
    net = _training(train_epoch, dropout=0.5)[2]
    expect.true(net.training, "the network is in evaluation mode.", "call net.train() first.")


def memory_of_an_epoch(train_epoch):
    loss = _training(train_epoch)[0]
    hint = "use loss.item(); a sum of tensors keeps the graphs of all batches."
    expect.true(not isinstance(loss, torch.Tensor), "the loss is a tensor, expected a float.", hint)


def confusion_matrix_counts(confusion_matrix):
    labels, predictions = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 0])
    right = np.array([[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    mistakes = {"rows are true classes, columns are predictions.": right.T}
    mistakes["m[labels, predictions] += 1 counts repeated pairs once."] = np.minimum(right, 1)
    expect.close(confusion_matrix(labels, predictions, 3), right, mistakes)


def confusion_matrix_with_missing_classes(confusion_matrix):
    right = np.zeros((4, 4))
    right[1, 2] = 2
    result = confusion_matrix(np.array([1, 1]), np.array([2, 2]), 4)
    mistakes = {"m[labels, predictions] += 1 counts repeated pairs once.": np.minimum(right, 1)}
    expect.close(result, right, mistakes)


def confusion_matrix_time(confusion_matrix):
    labels = np.arange(200_000) % 10
    arguments = labels, copy.copy(labels), 10
    expect.faster_than(0.05, lambda: confusion_matrix(*arguments), "use np.bincount or np.add.at.")


TASKS = [
    Task(
        "softmax",
        [
            softmax_values,
            softmax_of_more_dimensions,
            softmax_of_large_scores,
            softmax_keeps_its_input,
        ],
    ),
    Task("cross_entropy", [cross_entropy_value, cross_entropy_of_large_scores]),
    Task(
        "train_epoch", [weights_after_an_epoch, loss_of_an_epoch, training_mode, memory_of_an_epoch]
    ),
    Task(
        "confusion_matrix",
        [confusion_matrix_counts, confusion_matrix_with_missing_classes, confusion_matrix_time],
    ),
]
