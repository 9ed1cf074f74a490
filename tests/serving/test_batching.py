"""Batches of a worker: similar lengths, and the budget of tokens of each runtime."""

from typing import Any

import pytest

from serving.worker.batching import SampleQueue
from serving.worker.requests import BATCH_TOKENS, Model, Request, Sample


def samples(lengths: list[int], runtime: str) -> list[Sample]:
    model = Model("m@1", None, {"runtime": runtime})
    options: dict[str, Any] = {}
    return [
        Sample(Request(number, model, "classify", options, 1, print), 0, "text", length)
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("runtime", BATCH_TOKENS)
def test_a_batch_fits_into_the_budget_of_its_runtime(runtime: str) -> None:
    queue = SampleQueue(None, 1000)
    queue.put(samples([10] * 300, runtime))
    assert len(queue.take()) == BATCH_TOKENS[runtime] // 10
    queue = SampleQueue(100, 1000)
    queue.put(samples([10] * 300, runtime))
    assert len(queue.take()) == 10


def test_the_oldest_sample_is_with_those_of_similar_length() -> None:
    queue = SampleQueue(100, 3)
    queue.put(samples([20, 90, 21, 5, 19, 300], "torch"))
    assert [sample.length for sample in queue.take()] == [19, 20, 21]
    assert [sample.length for sample in queue.take()] == [90]
    assert [sample.length for sample in queue.take()] == [5]
    assert [sample.length for sample in queue.take()] == [300]  # alone, beyond the budget
    assert queue.take() == []
