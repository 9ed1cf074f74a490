"""Grader of day 47."""

import math
import random

import numpy as np

from exercises import expect
from exercises.grading import Task


def accuracy_of_the_majority(majority_baseline):
    train, test = np.array([2, 0, 2, 1, 2, 0]), np.array([0, 0, 0, 2, 1])
    mistakes = {
        "the class comes from the training data.": 0.6,
        "evaluate on the test data.": 0.5,
        "this is the accuracy of guessing at random.": 1 / 3,
    }
    expect.close(majority_baseline(train, test), 0.2, mistakes)
    expect.close(
        majority_baseline(np.array([1, 0]), np.array([0, 0, 1])),
        2 / 3,
        {"of equally frequent classes the smallest is predicted.": 1 / 3},
    )


def samples_of_a_comparison(samples_needed):
    value = (1.96 + 0.8416) ** 2 * (0.9 * 0.1 + 0.92 * 0.08) / 0.02**2
    mistakes = {
        "round up.": math.floor(value),
        "the power needs its quantile, too.": math.ceil(
            1.96**2 * (0.9 * 0.1 + 0.92 * 0.08) / 0.02**2
        ),
        "square the difference.": math.ceil(value * 0.02),
        "both accuracies have a variance.": math.ceil((1.96 + 0.8416) ** 2 * 0.09 / 0.02**2),
        "square the sum of the quantiles.": math.ceil(
            (1.96**2 + 0.8416**2) * (0.9 * 0.1 + 0.92 * 0.08) / 0.02**2
        ),
    }
    expect.equal(samples_needed(0.9, 0.92), math.ceil(value), mistakes)
    expect.equal(
        samples_needed(0.92, 0.9), math.ceil(value), name="the result for exchanged models"
    )


def power_by_simulation(samples_needed):
    n = samples_needed(0.7, 0.8)
    rng = np.random.default_rng(0)
    a, b = rng.binomial(n, 0.7, 4000) / n, rng.binomial(n, 0.8, 4000) / n
    error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)
    power = float((np.abs(a - b) > 1.96 * error).mean())
    expect.true(
        abs(power - 0.8) < 0.03,
        f"{n} samples find the difference in {power:.0%} of 4,000 simulations, expected 80%.",
    )


def near_duplicates(leaked_samples):
    train = [
        "The cat sat on the mat today",
        "a b",
        "one two three four five six seven eight nine ten",
    ]
    test = [
        "the  cat sat on the mat TODAY",
        "a completely different sentence about dogs",
        "A B",
        "one two three four five six seven eight nine eleven",
        "one two three",
    ]
    mistakes = {
        "compare lower-case words, split at whitespace.": [],
        "a text with fewer than n words has one n-gram.": [0],
        "divide by the union, not by the smaller set.": [0, 2, 3, 4],
        "7 of 9 common n-grams are below the threshold.": [0, 2, 3],
    }
    expect.equal(leaked_samples(train, test), [0, 2], mistakes)
    expect.equal(
        leaked_samples(train, test, 3, 7 / 9),
        [0, 2, 3],
        {"at least the threshold: use >=.": [0, 2]},
        "the result for threshold 7/9",
    )


def time_of_the_search(leaked_samples):
    rng = random.Random(0)
    texts = [
        " ".join(
            rng.choice("abcdefghijklmnopqrstuvwxyz") * 3 + str(rng.randrange(200))
            for _ in range(15)
        )
        for _ in range(600)
    ]
    hint = "build an index from n-grams to training texts instead of comparing all pairs."
    expect.faster_than(0.15, lambda: leaked_samples(texts[:500], texts[200:] * 2), hint, attempts=1)


TASKS = [
    Task("majority_baseline", [accuracy_of_the_majority]),
    Task("samples_needed", [samples_of_a_comparison, power_by_simulation]),
    Task("leaked_samples", [near_duplicates, time_of_the_search]),
]
