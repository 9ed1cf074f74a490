"""Grader of day 32."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def rates_of_layers(layer_rates):
    found = layer_rates(3, 0.1, 0.5)
    names = ["embeddings", "layer.0", "layer.1", "layer.2", "head"]
    expect.equal(sorted(found), names[:1] + names[4:] + names[1:4], name="the list of names")
    values = np.array([found[name] for name in names])
    right = 0.1 * 0.5 ** np.arange(4, -1, -1.0)
    mistakes = {
        "later layers have larger rates.": right[::-1],
        "the last layer has lr · decay, the head lr.": 0.1 * 0.5 ** np.array([3, 2, 1, 0, 0.0]),
        "the embeddings lie below the first layer.": 0.1 * 0.5 ** np.array([3, 3, 2, 1, 0.0]),
    }
    expect.close(values, right, mistakes, f"the rates of {names}")


def factors(linear_schedule):
    steps = [0, 5, 10, 20, 50, 60]
    found = np.array([float(linear_schedule(step, 10, 50)) for step in steps])
    right = np.array([0, 0.5, 1, 0.75, 0, 0])
    mistakes = {
        "the factor falls from 1 at the end of the warm-up.": np.array([0, 0.5, 0.8, 0.6, 0, 0]),
        "after total_steps the factor stays 0.": np.array([0, 0.5, 1, 0.75, 0, -0.25]),
        "after the warm-up the rate falls.": np.array([0, 0.5, 1, 1, 1, 1]),
    }
    expect.close(found, right, mistakes, f"the factor at the steps {steps}")
    try:
        first = linear_schedule(0, 0, 4)
    except ZeroDivisionError as error:
        raise expect.Wrong("division by zero without warm-up.") from error
    expect.close(first, 1.0, name="the first factor without warm-up")


def correlation_of_predictions(matthews_correlation):
    labels, predictions = np.array([1, 1, 1, 1, 0, 0, 0, 1]), np.array([1, 1, 0, 1, 0, 1, 0, 1])
    tp, tn, fp, fn = 4, 2, 1, 1
    right = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    mistakes = {
        "this is the accuracy.": 0.75,
        "the root is missing.": (tp * tn - fp * fn)
        / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "this is F1.": 8 / 10,
        "subtract FP · FN.": tp * tn / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
    }
    expect.close(matthews_correlation(labels, predictions), right, mistakes)
    expect.close(
        matthews_correlation(labels, 1 - labels),
        -1.0,
        {"wrong predictions have a negative correlation.": 1.0},
    )


def correlation_of_constant_predictions(matthews_correlation):
    with np.errstate(all="ignore"):
        found = matthews_correlation(np.array([0, 1, 1]), np.array([1, 1, 1]))
    expect.close(found, 0.0, {"0 / 0 is nan: the correlation is 0.": np.nan})


def correlation_of_large_sets(matthews_correlation):
    labels = np.arange(400_000, dtype=np.int32) % 2
    found = matthews_correlation(labels, np.ones_like(labels) * labels)
    expect.close(
        found,
        1.0,
        name="the correlation of 400,000 equal labels (products of counts overflow 64 bits)",
    )


def correlation_of_ranks(spearman):
    x = expect.normal(30)
    y = np.exp(2 * x) + expect.normal(30, seed=1)
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    right = np.corrcoef(*ranks)[0, 1]
    mistakes = {
        "this is Pearson's correlation: use ranks.": np.corrcoef(x, y)[0, 1],
        "argsort gives the order, not the ranks.": np.corrcoef(np.argsort(x), np.argsort(y))[0, 1],
    }
    expect.close(spearman(x, y), right, mistakes)


def correlation_with_ties(spearman):
    x, y = np.array([1.0, 2, 2, 2, 5]), np.array([1.0, 3, 2, 3, 3])
    right = np.corrcoef([1, 3, 3, 3, 5], [1, 4, 2, 4, 4])[0, 1]
    hint = "equal values have their mean rank."
    broken = np.corrcoef(
        np.argsort(np.argsort(x, kind="stable")), np.argsort(np.argsort(y, kind="stable"))
    )[0, 1]
    largest = np.corrcoef([1, 4, 4, 4, 5], [1, 5, 2, 5, 5])[0, 1]
    expect.close(spearman(x, y), right, [(hint, broken), (hint, largest)])


TASKS = [
    Task("layer_rates", [rates_of_layers]),
    Task("linear_schedule", [factors]),
    Task(
        "matthews_correlation",
        [
            correlation_of_predictions,
            correlation_of_constant_predictions,
            correlation_of_large_sets,
        ],
    ),
    Task("spearman", [correlation_of_ranks, correlation_with_ties]),
]
