"""Grader of day 30."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def memory_of_the_cache(cache_bytes):
    right = 2 * 12 * 12 * 64 * 1024 * 8 * 2
    mistakes = {
        "keys and values are cached: factor 2.": right // 2,
        "every layer has a cache.": right // 12,
    }
    expect.equal(cache_bytes(12, 12, 64, 1024, 8), right, mistakes)
    half = cache_bytes(32, 8, 128, 4096, 1, 1)
    expect.equal(
        half,
        2 * 32 * 8 * 128 * 4096,
        {"use bytes_each.": 2 * 32 * 8 * 128 * 4096 * 2},
        "the bytes with numbers of 8 bits",
    )


def fitted_power_law(fit_power_law):
    sizes = np.array([1e5, 1e6, 1e7, 1e8])
    losses = 9.0 * sizes**-0.08 * np.exp([0.01, -0.01, 0.02, -0.02])
    design = np.stack([np.ones(4), -np.log(sizes)], 1)
    solution = np.linalg.lstsq(design, np.log(losses), rcond=None)[0]
    a, b = expect.parts(fit_power_law(sizes, losses), 2)
    mistakes = {
        "b is the negative slope: losses fall.": -solution[1],
        "fit logarithms of both.": -np.polyfit(np.log(sizes), losses, 1)[0],
    }
    expect.close(b, solution[1], mistakes, "b")
    expect.close(a, np.exp(solution[0]), {"a is exp of the intercept.": solution[0]}, "a")


def extrapolated_loss(fit_power_law):
    sizes = np.array([10.0, 1000.0])
    a, b = expect.parts(fit_power_law(sizes, 5 * sizes**-0.5), 2)
    expect.close(a * 1e6**-b, 5e-3, name="the extrapolated loss")


def windows_of_a_text(scored_windows):
    right = [(0, 6, 0), (4, 10, 6), (8, 11, 10)]
    mistakes = {
        "score a token once: after the end of the window before.": [
            (0, 6, 0),
            (4, 10, 4),
            (8, 11, 8),
        ],
        "the end of the text is missing.": right[:-1],
        "begin `stride` tokens after each other.": [(0, 6, 0), (6, 11, 6)],
    }
    expect.equal(scored_windows(11, 6, 4), right, mistakes)
    extra = {"stop at the window that ends with the text.": [(0, 6, 0), (4, 10, 6), (8, 10, 10)]}
    expect.equal(scored_windows(10, 6, 4), right[:2], extra)


def each_token_is_scored_once(scored_windows):
    for length, context, stride in ((20, 8, 8), (17, 5, 1), (3, 10, 4)):
        windows = scored_windows(length, context, stride)
        scored = [p for _, end, first in windows for p in range(first, end)]
        expect.equal(
            scored,
            list(range(length)),
            name=f"the list of scored positions for {length, context, stride}",
        )
        short = [
            p
            for begin, end, first in windows
            for p in range(first, end)
            if p - begin < min(p, context - stride)
        ]
        expect.true(not short, f"positions {short[:3]} have less context than possible.")


TASKS = [
    Task("cache_bytes", [memory_of_the_cache]),
    Task("fit_power_law", [fitted_power_law, extrapolated_loss]),
    Task("scored_windows", [windows_of_a_text, each_token_is_scored_once]),
]
