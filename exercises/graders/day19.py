"""Grader of day 19."""

from itertools import pairwise

import numpy as np

from exercises import expect
from exercises.grading import Task


def _counts(tokens, size):
    counts = np.zeros((size, size))
    for a, b in pairwise(tokens):
        counts[a, b] += 1
    return counts


def probabilities_of_pairs(bigram_probabilities):
    tokens = np.array([0, 1, 0, 1, 2, 0, 1, 0, 0])
    counts = _counts(tokens, 4)
    smooth = counts + 0.5
    right = smooth / smooth.sum(1, keepdims=True)
    mistakes = {
        "rows are the character before, columns the one after.": smooth.T
        / smooth.T.sum(1, keepdims=True),
        "each row is a distribution: divide by the sum of the row.": smooth / smooth.sum(),
        "counts[a, b] += 1 counts repeated pairs once: use np.add.at.": (
            np.minimum(counts, 1) + 0.5
        )
        / (np.minimum(counts, 1) + 0.5).sum(1, keepdims=True),
        "normalize over the second character.": smooth / smooth.sum(0),
    }
    expect.close(bigram_probabilities(tokens, 4, 0.5), right, mistakes)


def probabilities_of_unseen_characters(bigram_probabilities):
    with np.errstate(all="ignore"):
        found = bigram_probabilities(np.array([0, 0]), 3)
    hint = "add α to every count: a row without counts is uniform."
    expect.true(np.isfinite(found).all() and (found > 0).all(), "a probability is 0 or nan.", hint)
    expect.close(found[2], np.full(3, 1 / 3), name="the row of an unseen character")


def loss_of_a_text(mean_loss):
    probabilities = np.exp(expect.normal(3, 3))
    probabilities /= probabilities.sum(1, keepdims=True)
    tokens = np.array([0, 2, 1, 1, 0])
    logs = np.log([probabilities[a, b] for a, b in ((0, 2), (2, 1), (1, 1), (1, 0))])
    mistakes = {
        "the loss is the negative log-likelihood.": logs.mean(),
        "divide by the number of predictions, N - 1.": -logs.sum() / 5,
        "take the mean.": -logs.sum(),
        "use nats, not bits.": -logs.mean() / np.log(2),
        "row a is the distribution after a.": -np.log(
            [probabilities.T[a, b] for a, b in ((0, 2), (2, 1), (1, 1), (1, 0))]
        ).mean(),
    }
    expect.close(mean_loss(probabilities, tokens), -logs.mean(), mistakes)


def best_model_of_a_text(mean_loss):
    tokens = np.array([0, 1, 2, 1, 0, 2, 1, 1, 0, 2, 0])
    counts = _counts(tokens, 3)
    right = (
        -(counts * np.log(np.where(counts > 0, counts / counts.sum(1, keepdims=True), 1))).sum()
        / 10
    )
    with np.errstate(all="ignore"):
        expect.close(
            mean_loss(counts / counts.sum(1, keepdims=True), tokens),
            right,
            {"0 · log 0 is nan: look up the pairs that occur only.": np.nan},
        )


def entropy_of_a_chain(conditional_entropy):
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])
    pi = np.linalg.matrix_power(p, 200)[0]
    rows = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    mistakes = {
        "weight the rows by π, the left eigenvector: that of the transposed matrix.": rows.mean(),
        "this is the entropy of single characters; use p(b | a).": -(pi * np.log(pi)).sum(),
        "use nats, not bits.": pi @ rows / np.log(2),
        "0 log 0 is 0.": np.nan,
    }
    with np.errstate(all="ignore"):
        expect.close(conditional_entropy(p), pi @ rows, mistakes)


def entropy_of_a_uniform_chain(conditional_entropy):
    expect.close(conditional_entropy(np.full((5, 5), 0.2)), np.log(5))


def windows_of_a_text(contexts):
    tokens = np.array([4, 8, 6, 7, 5])
    found = expect.parts(contexts(tokens, 2), 2)
    right = np.array([[4, 8], [8, 6], [6, 7]])
    expect.close(
        found[0],
        right,
        {
            "the oldest character is first.": right[:, ::-1],
            "the last window has no target.": np.array([[4, 8], [8, 6], [6, 7], [7, 5]]),
        },
        "the contexts",
    )
    expect.close(
        found[1],
        np.array([6, 7, 5]),
        {"the target follows the context.": np.array([8, 6, 7])},
        "the targets",
    )


def time_of_windows(contexts):
    tokens = np.arange(200_000) % 65
    hint = "use sliding_window_view or index arithmetic instead of a loop."
    expect.faster_than(0.1, lambda: contexts(tokens, 8), hint)


TASKS = [
    Task("bigram_probabilities", [probabilities_of_pairs, probabilities_of_unseen_characters]),
    Task("mean_loss", [loss_of_a_text, best_model_of_a_text]),
    Task("conditional_entropy", [entropy_of_a_chain, entropy_of_a_uniform_chain]),
    Task("contexts", [windows_of_a_text, time_of_windows]),
]
