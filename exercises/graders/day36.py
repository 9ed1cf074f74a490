"""Grader of day 36."""

import numpy as np

from exercises import expect
from exercises.grading import Task


def batches_within_the_budget(batch_requests):
    requests = [("a", 10), ("b", 10), ("c", 30), ("d", 5), ("e", 5), ("f", 5)]
    right = [["a", "b"], ["c"], ["d", "e", "f"]]
    mistakes = {
        "padding counts: a batch costs its size times its longest request.": [
            ["a", "b"],
            ["c", "d", "e"],
            ["f"],
        ],
        "the new request may be the longest: include it in the cost.": [
            ["a", "b", "c"],
            ["d", "e", "f"],
        ],
        "the last batch is missing.": right[:-1],
        "keep the order of arrival.": [["d", "e", "f", "a"], ["b"], ["c"]],
    }
    expect.equal(batch_requests(requests, 40, 8), right, mistakes)


def batches_of_limited_size(batch_requests):
    right = [["a", "b"], ["c", "d"], ["e"]]
    requests = [(name, 1) for name in "abcde"]
    mistakes = {
        "a batch may have max_batch requests, not one more.": [["a", "b", "c"], ["d", "e"]],
        "max_batch is allowed: use <=.": [["a"], ["b"], ["c"], ["d"], ["e"]],
        "the number of requests is limited, too.": [["a", "b", "c", "d", "e"]],
    }
    expect.equal(batch_requests(requests, 100, 2), right, mistakes)


def batches_of_long_requests(batch_requests):
    mistakes = {
        "the first batch is empty.": [[], ["a"], ["b"]],
        "a request that is too long is served alone, not dropped.": [["b"]],
    }
    expect.equal(batch_requests([("a", 99), ("b", 1)], 10, 4), [["a"], ["b"]], mistakes)
    expect.equal(batch_requests([], 10, 4), [], {"without requests there are no batches.": [[]]})


def percentiles(percentile):
    latencies = [float(value) for value in expect.normal(40) ** 2]
    for percent in (1, 50, 90, 95, 99, 100):
        right = np.percentile(latencies, percent, method="inverted_cdf")
        mistakes = {
            "sort the latencies first.": latencies[int(np.ceil(percent * 0.4)) - 1],
            "the nearest rank is one of the latencies; do not interpolate.": np.percentile(
                latencies, percent
            ),
            "ranks begin at 1, indices at 0.": sorted(latencies)[
                min(39, int(np.ceil(percent * 0.4)))
            ],
        }
        expect.close(
            percentile(list(latencies), percent), right, mistakes, f"the {percent}th percentile"
        )


def percentiles_of_few_requests(percentile):
    expect.close(percentile([3.0], 99), 3.0)
    expect.close(percentile([1.0, 2.0], 50), 1.0, {"half of the requests take at most 1.": 2.0})
    expect.raises(ValueError, lambda: percentile([], 50), "if there are no latencies")
    expect.raises(ValueError, lambda: percentile([1.0], 0), "for the percentile 0")


def _allowed(TokenBucket, times, rate=2.0, burst=3):
    bucket = TokenBucket(rate, burst)
    return [bucket.allow(now) for now in times]


def bursts(TokenBucket):
    mistakes = {
        "the bucket is full at the start.": [False] * 5,
        "the bucket holds `burst` tokens, so `burst` requests pass.": [
            True,
            True,
            False,
            False,
            False,
        ],
        "a request needs one token.": [True] * 5,
    }
    expect.equal(_allowed(TokenBucket, [100.0] * 5), [True, True, True, False, False], mistakes)


def refill(TokenBucket):
    times = [0.0, 0.0, 0.0, 0.4, 0.6, 0.7]
    hint = "a refused request must not lose the time since the last one: tokens are fractions."
    mistakes = {hint: [True, True, True, False, False, False]}
    expect.equal(_allowed(TokenBucket, times), [True, True, True, False, True, False], mistakes)


def a_long_pause(TokenBucket):
    hint = "the bucket holds at most `burst` tokens, however long the pause."
    result = _allowed(TokenBucket, [0.0] + [1000.0] * 5)
    expect.equal(result, [True, True, True, True, False, False], {hint: [True] * 6})


def valid_requests(parse_request):
    expect.equal(parse_request({"texts": ["a", ""]}), ["a", ""])
    limit = parse_request({"texts": ["a"] * 3}, max_texts=3)
    expect.equal(limit, ["a"] * 3)


def invalid_requests(parse_request):
    for body, when in (
        ({}, "if texts is missing"),
        ({"texts": []}, "for an empty list"),
        ({"texts": "abc"}, "for a string instead of a list: a string is a sequence of strings"),
        ({"texts": ["a", 1]}, "for a number among the texts"),
        ({"texts": None}, "for null"),
        ({"texts": ["a"] * 9}, "for more than max_texts texts"),
        (
            {"texts": ["a"], "txt": 1},
            "for an unknown field: a misspelled option must not be ignored",
        ),
    ):
        expect.raises(ValueError, lambda body=body: parse_request(body), when)


def messages_of_invalid_requests(parse_request):
    for body, field in (({"texts": 1}, "texts"), ({"texts": ["a"], "txt": 1}, "txt")):
        try:
            parse_request(body)
        except ValueError as error:
            named = field in str(error)
            expect.true(named, f"the message '{error}' does not name the field {field}.")
        else:
            raise expect.Wrong(f"{body} is accepted.")


TASKS = [
    Task(
        "batch_requests",
        [batches_within_the_budget, batches_of_limited_size, batches_of_long_requests],
    ),
    Task("percentile", [percentiles, percentiles_of_few_requests]),
    Task("TokenBucket", [bursts, refill, a_long_pause]),
    Task("parse_request", [valid_requests, invalid_requests, messages_of_invalid_requests]),
]
