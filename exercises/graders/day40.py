"""Grader of day 40."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def _nll(logits, labels, temperature):
    return F.cross_entropy(torch.from_numpy(logits / temperature), torch.from_numpy(labels)).item()


def temperature_of_a_classifier(fit_temperature):
    logits = 2 * expect.normal(400, 3)
    noise = expect.normal(400, 3, seed=1)
    labels = (logits + 2.5 * noise).argmax(1)
    for factor in (1.0, 20.0):
        found = fit_temperature(factor * logits, labels)
        expect.true(float(found) > 0, f"the temperature is {found}, expected a positive number.")
        best = min(
            np.geomspace(0.2, 60, 3000) * factor / 4, key=lambda t: _nll(factor * logits, labels, t)
        )
        mistakes = {"divide by T, do not multiply: this is 1 / T.": 1 / best}
        expect.close(
            found, best, mistakes, f"the temperature for logits of scale {factor:g}", rtol=3e-3
        )


def temperature_keeps_the_predictions(fit_temperature):
    logits, labels = (
        np.array([[5.0, 0.0], [5.0, 0.0], [5.0, 0.0], [0.0, 5.0]]),
        np.array([0, 0, 1, 1]),
    )
    found = fit_temperature(logits, labels)
    right = 5 / math.log(3)  # 3 of 4 are correct, so the confidence must be 0.75
    expect.close(found, right, {"use the validation labels.": 1.0}, rtol=2e-3)


def workers_of_a_load(workers_needed):
    mistakes = {
        "round up.": 7,
        "leave room: divide by the utilization.": 5,
        "a batch answers `batch` requests.": 58,
        "multiply the workers by the utilization, not the load.": 4,
    }
    expect.equal(workers_needed(200.0, 0.2, 8), 8, mistakes)
    expect.equal(workers_needed(1.0, 0.01, 1), 1, {"there is at least one worker.": 0})


def forgotten_entries(LeastRecentlyUsed):
    cache = LeastRecentlyUsed(2)
    cache.put("a", "1")
    cache.put("b", "2")
    expect.equal(cache.get("a"), "1")
    cache.put("c", "3")
    kept = [key for key in "abc" if cache.get(key) is not None]
    mistakes = {
        "get counts as a use: this forgets the oldest entry.": ["b", "c"],
        "the cache has at most `size` entries.": ["a", "b", "c"],
        "forget the least recently used entry, not the last.": ["a", "b"],
    }
    expect.equal(kept, ["a", "c"], mistakes, "the list of entries")


def replaced_entries(LeastRecentlyUsed):
    cache = LeastRecentlyUsed(2)
    for key, answer in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")):
        cache.put(key, answer)
    values = [cache.get(key) for key in "abc"]
    mistakes = {
        "putting a key again counts as a use.": [None, "2", "4"],
        "putting a key again replaces its answer.": ["1", None, "4"],
    }
    expect.equal(values, ["3", None, "4"], mistakes, "the list of answers")


def time_of_the_cache(LeastRecentlyUsed):
    def run():
        cache = LeastRecentlyUsed(5_000)
        for i in range(20_000):
            cache.put(str(i), "x")

    expect.faster_than(
        0.5, run, "use collections.OrderedDict: searching a list takes O(size).", attempts=2
    )


def opening(CircuitBreaker):
    breaker = CircuitBreaker(3, 10.0)
    allowed = []
    for now, success in enumerate([False, False, True, False, False, False]):
        allowed.append(breaker.allow(float(now)))
        breaker.record(success, float(now))
    expect.equal(
        allowed,
        [True] * 6,
        {"a success restarts the count: only failures in a row open it.": [True] * 4 + [False] * 2},
        "the list of allowed calls",
    )
    expect.equal(
        [breaker.allow(6.0), breaker.allow(14.9)],
        [False, False],
        {"`threshold` failures in a row open it.": [True, True]},
        "the list of calls while open",
    )


def half_open(CircuitBreaker):
    breaker = CircuitBreaker(2, 10.0)
    for _ in range(2):
        breaker.allow(1.0)
        breaker.record(False, 1.0)
    first = [breaker.allow(11.0), breaker.allow(11.1)]
    mistakes = {
        "only one call is allowed until its result.": [True, True],
        "after the timeout one call is allowed.": [False, False],
    }
    expect.equal(first, [True, False], mistakes, "the list of calls after the timeout")
    breaker.record(False, 12.0)
    second = [breaker.allow(21.5), breaker.allow(22.0)]
    mistakes = {
        "a failed trial opens it for another timeout, from then on.": [True, False],
        "one failed trial is enough.": [True, True],
    }
    expect.equal(second, [False, True], mistakes, "the list of calls after a failed trial")
    breaker.record(True, 22.0)
    breaker.record(False, 22.5)
    expect.equal(
        [breaker.allow(23.0), breaker.allow(23.0)],
        [True, True],
        {"a success closes it, and the count begins at 0.": [False, False]},
        "the list of calls after a success",
    )


TASKS = [
    Task("fit_temperature", [temperature_of_a_classifier, temperature_keeps_the_predictions]),
    Task("workers_needed", [workers_of_a_load]),
    Task("LeastRecentlyUsed", [forgotten_entries, replaced_entries, time_of_the_cache]),
    Task("CircuitBreaker", [opening, half_open]),
]
