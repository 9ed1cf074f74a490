"""Grader of day 7."""

import math

import numpy as np

from exercises import expect
from exercises.grading import Task


def _f1(labels, predictions, c):
    hits = np.sum((labels == c) & (predictions == c))
    total = np.sum(labels == c) + np.sum(predictions == c)
    return 2 * hits / total if total else 0.0


def f1_of_unbalanced_classes(macro_f1):
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 0, 0, 0, 1, 2, 1, 0, 2, 2])
    values = [_f1(labels, predictions, c) for c in range(3)]
    recalls = [np.mean(predictions[labels == c] == c) for c in range(3)]
    mistakes = {
        "this is the accuracy, equal to micro F1.": 0.7,
        "do not weight classes by their frequency.": np.average(values, weights=[6, 2, 2]),
        "this is the mean recall.": np.mean(recalls),
        "average F1 over classes, not precision and recall.": 2
        / (1 / np.mean(recalls) + 1 / np.mean([0.8, 0.5, 2 / 3])),
    }
    expect.close(macro_f1(labels, predictions, 3), np.mean(values), mistakes)


def f1_of_missing_classes(macro_f1):
    with np.errstate(all="ignore"):
        result = macro_f1(np.array([0, 0, 1]), np.array([0, 0, 1]), 4)
    hint = {"a class without samples and predictions counts as 0.": 1.0, "0 / 0 is nan.": np.nan}
    expect.close(result, 0.5, hint)


def area_under_the_curve(roc_auc):
    labels = (expect.normal(40) > 0).astype(int)
    scores = expect.normal(40, seed=1) + labels
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    right = float((pairs > 0).mean())
    expect.close(
        roc_auc(labels, scores), right, {"positives should have the higher scores.": 1 - right}
    )


def area_with_ties(roc_auc):
    labels, scores = np.array([0, 1, 0, 1, 1, 0]), np.array([0.5, 0.5, 0.2, 0.5, 0.9, 0.9])
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    right = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    half = "equal scores count one half."
    highest = (scores[None] <= scores[labels == 1][:, None]).sum() - 6  # sum of ranks from 1 to 3
    mistakes = [(half, (pairs > 0).mean()), (half, (pairs >= 0).mean()), (half, highest / 9)]
    expect.close(roc_auc(labels, scores), right, mistakes)
    expect.close(roc_auc(np.array([0, 1]), np.array([1.0, 1.0])), 0.5, [(half, 0.0), (half, 1.0)])


def area_of_many_scores(roc_auc):
    labels, scores = np.arange(50_000) % 2, expect.normal(50_000)
    hint = "sort the scores and use ranks instead of comparing all pairs."
    expect.faster_than(0.3, lambda: roc_auc(labels, scores), hint, attempts=2)


def interval_of_an_accuracy(bootstrap_interval):
    values = (np.arange(200) % 5 > 0).astype(float)  # 80 %
    low, high = expect.parts(bootstrap_interval(values, 2000, np.random.default_rng(0)), 2)
    error = np.sqrt(0.8 * 0.2 / 200)
    hint = ""
    if low == high:
        hint = "draw with replacement: without it every sample is the same."
    elif high - low < 3.5 * error:
        hint = "the quantiles are 2.5 % and 97.5 %, of samples as large as the data."
    elif high - low > 5 * error:
        hint = "take the quantiles of the means, not of the values."
    right = abs(low - (0.8 - 1.96 * error)) < 0.01 and abs(high - (0.8 + 1.96 * error)) < 0.01
    expect.true(
        right, f"the interval is {low:.3f} to {high:.3f}, expected about 0.745 to 0.855.", hint
    )


def interval_of_another_level(bootstrap_interval):
    values = expect.normal(100)
    low, high = expect.parts(bootstrap_interval(values, 2000, np.random.default_rng(0), 0.5), 2)
    width, right = high - low, 2 * 0.6745 * values.std() / 10
    message = f"the width at level 0.5 is {width:.3f}, expected about {right:.3f}."
    expect.true(abs(width - right) < 0.02, message, "the quantiles are (1 ± level) / 2.")


def _binomial_test(fewer, n):
    """Return the two-sided p-value from the distribution of n coins, by repeated convolution."""
    distribution = np.ones(1)
    for _ in range(n):
        distribution = np.convolve(distribution, [0.5, 0.5])
    return float(distribution[: fewer + 1].sum() + distribution[n - fewer :].sum())


def p_values(mcnemar_p_value):
    first = np.array([True] * 60 + [False] * 40)
    second = first.copy()
    second[:9] = False
    second[60:62] = True
    right = _binomial_test(2, 11)
    mistakes = {
        "the test is two-sided: multiply by 2.": right / 2,
        "use the binomial distribution, not χ², for few samples.": math.erfc(7 / math.sqrt(22)),
        "only samples that one of the two gets right count.": _binomial_test(53, 113),
        "sum the probabilities from 0 to min(b, n - b).": 2 * math.comb(11, 2) / 2**11,
    }
    expect.close(mcnemar_p_value(first, second), right, mistakes)
    expect.close(mcnemar_p_value(second, first), right, name="the result for exchanged classifiers")


def p_values_of_equal_classifiers(mcnemar_p_value):
    correct = np.array([True, False, True])
    hint = [("a probability is at most 1.", wrong) for wrong in (1.5, 2.0)]
    expect.close(mcnemar_p_value(correct, correct), 1.0, hint)
    expect.close(mcnemar_p_value(np.array([True, False]), np.array([False, True])), 1.0, hint)


TASKS = [
    Task("macro_f1", [f1_of_unbalanced_classes, f1_of_missing_classes]),
    Task("roc_auc", [area_under_the_curve, area_with_ties, area_of_many_scores]),
    Task("bootstrap_interval", [interval_of_an_accuracy, interval_of_another_level]),
    Task("mcnemar_p_value", [p_values, p_values_of_equal_classifiers]),
]
