"""Grader of day 50."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def corrected_p_values(holm):
    p = [0.04, 0.01, 0.03, 0.005]
    right = np.array([0.06, 0.03, 0.06, 0.02])
    mistakes = {
        "this is Bonferroni's correction: the i-th is multiplied by m - i.": np.array(
            [0.16, 0.04, 0.12, 0.02]
        ),
        "a corrected value is at least as large as those before it.": np.array(
            [0.04, 0.03, 0.06, 0.02]
        ),
        "return the values in the order of the input.": np.array([0.02, 0.03, 0.06, 0.06]),
        "the smallest p-value has the largest factor.": np.array([0.16, 0.02, 0.09, 0.005]),
    }
    expect.close(np.array(holm(list(p))), right, mistakes)


def large_p_values(holm):
    expect.close(
        np.array(holm([0.9, 0.6])),
        np.array([1.0, 1.0]),
        {"a p-value is at most 1.": np.array([1.2, 1.2])},
    )
    expect.equal(holm([]), [])
    expect.close(np.array(holm([0.2])), np.array([0.2]), name="a single p-value")


def interval_of_paired_results(paired_interval):
    first = np.arange(400) % 10 > 0  # 90 %
    second = first & (np.arange(400) % 40 != 1)  # 87.5 %, always wrong where the first is
    low, high = expect.parts(paired_interval(first, second, 2000, np.random.default_rng(0)), 2)
    paired, unpaired = (first ^ second).std() / 20, np.sqrt(0.9 * 0.1 + 0.875 * 0.125) / 20
    width = high - low
    hint = ""
    if abs(width - 3.92 * unpaired) < 0.012:
        hint = "resample both models together: their results on a sample are related."
    elif low < 0 and high < 0:
        hint = "the difference is mean(first) - mean(second)."
    right = abs(width - 3.92 * paired) < 0.006 and abs((low + high) / 2 - 0.025) < 0.005
    expect.true(
        right, f"the interval is {low:.4f} to {high:.4f}, expected about 0.0100 to 0.0400.", hint
    )


def interval_of_equal_models(paired_interval):
    correct = np.arange(50) % 3 > 0
    found = expect.parts(paired_interval(correct, correct, 200, np.random.default_rng(0)), 2)
    hint = "resample both models together: their results on a sample are related."
    expect.true(
        found == (0.0, 0.0), f"the interval of equal models is {found}, expected (0.0, 0.0).", hint
    )


def printed_results(format_result):
    mistakes = {
        "as many digits as the deviation supports.": "0.9810 ± 0.0012",
        "mean and deviation have equally many decimals.": "0.9810 ± 0.001",
        "one significant digit of the deviation.": "0.9810 ± 0.0012",
    }
    expect.equal(format_result([0.9812, 0.9797, 0.9821]), "0.981 ± 0.001", mistakes)
    expect.equal(
        format_result([123.0, 161.0]),
        "142 ± 27",
        {
            "divide by n - 1.": "142 ± 19",
            "a deviation of at least 1 has no decimals.": "142.0 ± 26.9",
        },
    )
    expect.equal(format_result([1.62, 1.31, 1.45]), "1.5 ± 0.2", {"divide by n - 1.": "1.5 ± 0.1"})


def printed_limits(format_result):
    expect.equal(format_result([0.98765]), "0.9877", name="a single value")
    expect.equal(
        format_result([0.5, 0.5]),
        "0.5",
        {"a deviation of 0 has no logarithm.": "0 ± 0"},
        "the result for equal values",
    )
    half = 0.00968 / 2**0.5
    expect.equal(
        format_result([0.9 - half, 0.9 + half]),
        "0.90 ± 0.01",
        {"0.0097 rounds to 0.01, which has two decimals.": "0.900 ± 0.010"},
        "the result for deviation 0.0097",
    )


TASKS = [
    Task("holm", [corrected_p_values, large_p_values]),
    Task("paired_interval", [interval_of_paired_results, interval_of_equal_models]),
    Task("format_result", [printed_results, printed_limits]),
]
