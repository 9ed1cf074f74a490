"""Grader of day 44."""

import itertools
import math

import numpy as np

from exercises import expect
from exercises.grading import Task


def _ece(confidence, correct, bins, weighted=True, absolute=True):
    total = 0.0
    filled = 0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if b == 0:
            inside |= confidence == 0
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            total += (abs(gap) if absolute else gap) * (inside.mean() if weighted else 1)
            filled += 1
    return total if weighted else total / filled


def calibration_error(expected_calibration_error):
    confidence = 1 / (1 + np.exp(-2 * expect.normal(200)))
    correct = expect.normal(200, seed=1) > 0.3
    for bins in (10, 3):
        mistakes = {
            "weight each bin by its share of the answers.": _ece(
                confidence, correct, bins, weighted=False
            ),
            "take the absolute value in each bin, before the sum.": abs(
                _ece(confidence, correct, bins, absolute=False)
            ),
            "compare the mean of each bin, not each answer.": np.abs(correct - confidence).mean(),
        }
        expect.close(
            expected_calibration_error(confidence, correct, bins),
            _ece(confidence, correct, bins),
            mistakes,
        )


def confidences_at_the_edges(expected_calibration_error):
    confidence, correct = np.array([0.0, 0.5, 1.0, 1.0]), np.array([False, True, True, False])
    mistakes = {
        "a confidence of 0.5 belongs to the bin that ends there.": 0.125,
        "confidence 1 has no bin of its own.": 0.5,
    }
    right = (abs(0.5 - 1.0 + 0.0) + 1.0) / 4
    expect.close(expected_calibration_error(confidence, correct, 2), right, mistakes)


def filter_of_safe_prompts(filter_threshold):
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.7, 0.35, 0.6, 0.8, 0.9, 0.95])
    unsafe = np.array([False] * 5 + [True] * 5)
    mistakes = {
        "count the blocked among the safe prompts only.": 0.9,
        "choose the smallest threshold: it blocks the most unsafe prompts.": 0.95,
        "a prompt with the score of the threshold is blocked: use >=.": 0.4,
    }
    expect.close(filter_threshold(scores, unsafe, 0.2), 0.6, mistakes)


def filter_without_false_positives(filter_threshold):
    scores, unsafe = np.array([0.5, 0.5, 0.9]), np.array([True, False, False])
    hint = "equal scores are blocked together; without a threshold return inf."
    expect.close(filter_threshold(scores, unsafe, 0.0), math.inf, {hint: 0.9})
    both = filter_threshold(np.array([0.2, 0.8]), np.array([False, True]), 0.0)
    expect.close(both, 0.8, {"at most the fraction: use <=.": math.inf})


def interval_of_a_rate(wilson_interval):
    for successes, trials in ((3, 20), (80, 100)):
        rate, z = successes / trials, 1.96
        # roots of (p̂ - p)² = z² p (1 - p) / n
        coefficients = [1 + z**2 / trials, -2 * rate - z**2 / trials, rate**2]
        low, high = sorted(np.roots(coefficients).real)
        normal = z * math.sqrt(rate * (1 - rate) / trials)
        result = expect.parts(wilson_interval(successes, trials), 2)
        hint = "this is the normal interval; solve the quadratic inequality."
        divided = "divide by 1 + z² / n."
        expect.close(
            result[0], low, {hint: rate - normal, divided: low * coefficients[0]}, "the lower bound"
        )
        expect.close(
            result[1],
            high,
            {hint: rate + normal, divided: high * coefficients[0]},
            "the upper bound",
        )


def interval_without_successes(wilson_interval):
    low, high = expect.parts(wilson_interval(0, 50), 2)
    expect.close(low, 0.0, name="the lower bound", atol=1e-9)
    scale = 1.96**2 / 50
    expect.close(
        high,
        scale / (1 + scale),
        {"0 of 50 does not prove that the rate is 0.": 0.0},
        "the upper bound",
    )


def estimates_of_pass_at_k(pass_at_k):
    for n, c, k in ((6, 2, 3), (5, 1, 1), (7, 3, 2)):
        draws = list(itertools.combinations(range(n), k))
        right = sum(min(draw) < c for draw in draws) / len(draws)
        mistakes = {
            "draw without replacement: C(n - c, k) / C(n, k).": 1 - (1 - c / n) ** k,
            "this is the probability that none is correct.": 1 - right,
        }
        mistakes = {hint: wrong for hint, wrong in mistakes.items() if abs(wrong - right) > 1e-9}
        expect.close(pass_at_k(n, c, k), right, mistakes)


def limits_of_pass_at_k(pass_at_k):
    expect.close(pass_at_k(10, 0, 5), 0.0)
    expect.close(pass_at_k(10, 8, 5), 1.0)
    large = pass_at_k(5000, 1, 2500)
    hint = "floats overflow; use integers (math.comb) or a product of ratios."
    expect.close(large, 0.5, {hint: math.nan})


def agreement(cohen_kappa):
    first = list("yyyynnynny")
    second = list("yynynnyyny")
    observed, chance = 0.8, 0.6 * 0.6 + 0.4 * 0.4
    mistakes = {
        "subtract the agreement by chance.": observed,
        "chance depends on how often each judge gives each label.": (observed - 0.5) / 0.5,
        "divide by 1 - p_e.": observed - chance,
    }
    expect.close(cohen_kappa(first, second), (observed - chance) / (1 - chance), mistakes)


def agreement_of_three_labels(cohen_kappa):
    first, second = list("aabbcc"), list("aabcbd")
    chance = (2 * 2 + 2 * 2 + 2 * 1) / 36
    expect.close(cohen_kappa(first, second), (0.5 - chance) / (1 - chance))
    hint = {"p_e is 1: 0 / 0; the result is 1.": math.nan}
    expect.close(cohen_kappa(["y"] * 3, ["y"] * 3), 1.0, hint, "the result for one label")


TASKS = [
    Task("expected_calibration_error", [calibration_error, confidences_at_the_edges]),
    Task("filter_threshold", [filter_of_safe_prompts, filter_without_false_positives]),
    Task("wilson_interval", [interval_of_a_rate, interval_without_successes]),
    Task("pass_at_k", [estimates_of_pass_at_k, limits_of_pass_at_k]),
    Task("cohen_kappa", [agreement, agreement_of_three_labels]),
]
