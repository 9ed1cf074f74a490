"""Dynamic batching: samples of similar length from any requests share a batch."""

import bisect
import math
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import UserError
from serving.worker.requests import Sample

MERGED = ("classify", "top_k")  # requests that differ only in this option share a batch


class SampleQueue:
    """Samples that wait for a batch, for all models of a worker.

    The oldest sample is always in the next batch, so that no sample waits for more than the batches
    of the samples before it. The others are those of the same kind that are closest to it in
    length: a batch is padded to its longest sample.

    Args:
        batch_tokens: Maximum number of tokens of a batch, including padding; that of its model by
            default.
        batch_size: Maximum number of samples of a batch.
    """

    def __init__(self, batch_tokens: int | None, batch_size: int) -> None:
        self.batch_tokens = batch_tokens
        self.batch_size = batch_size
        self._samples: dict[Sample, None] = {}  # in order of arrival
        self._lock = threading.Lock()

    def put(self, samples: Sequence[Sample]) -> None:
        with self._lock:
            self._samples.update(dict.fromkeys(samples))

    def __len__(self) -> int:
        return len(self._samples)

    def take(self) -> list[Sample]:
        """Remove and return the samples of the next batch; an empty list if none waits."""
        with self._lock:
            for sample in [sample for sample in self._samples if sample.request.closed]:
                del self._samples[sample]
            if not self._samples:
                return []
            oldest = next(iter(self._samples))
            kind = batch_key(oldest)
            same = [sample for sample in self._samples if batch_key(sample) == kind]
            tokens = self.batch_tokens or oldest.request.model.batch_tokens
            batch = choose(same, tokens, self.batch_size)
            for sample in batch:
                del self._samples[sample]
        return batch


def choose(samples: Sequence[Sample], tokens: int, size: int) -> list[Sample]:
    """Return the first sample and those closest to it in length that fit into the budget."""
    ordered = sorted(samples, key=lambda sample: sample.length)
    lengths = [sample.length for sample in ordered]
    first = bisect.bisect_left(lengths, samples[0].length)
    first = next(n for n in range(first, len(ordered)) if ordered[n] is samples[0])
    low = high = first  # the batch is ordered[low : high + 1]
    while high - low + 1 < min(size, len(ordered)):
        shorter = lengths[first] - lengths[low - 1] if low else math.inf
        longer = lengths[high + 1] - lengths[first] if high + 1 < len(ordered) else math.inf
        grown = high - low + 2
        if longer <= shorter and lengths[high + 1] * grown <= tokens:
            high += 1
        elif low and lengths[high] * grown <= tokens:
            low -= 1
        else:
            break
    return ordered[low : high + 1]


def batch_key(sample: Sample) -> tuple[Any, ...]:
    """Return what the samples of a batch have in common: model, method and options."""
    request = sample.request
    kept = {
        name: name in request.options if (request.operation, name) == MERGED else repr(value)
        for name, value in request.options.items()
    }
    return request.model.version, request.operation, *sorted(kept.items())


def run_batch(samples: list[Sample]) -> None:
    """Call the method of the task for a batch and finish the samples.

    If the batch fails, each sample is run on its own, so that only those that cause it fail.
    """
    request = samples[0].request
    method = getattr(request.model.task, request.operation)
    options = dict(request.options)
    operation, name = MERGED
    tops: list[Any] = [
        sample.request.options.get(name) if request.operation == operation else None
        for sample in samples
    ]
    if tops[0] is not None:
        options[name] = max(tops)
    try:
        results = method([sample.value for sample in samples], **options)
    except UserError as error:
        results, failure = None, ("invalid", str(error))
    except Exception as error:
        results, failure = None, ("internal", repr(error))
    if results is None:
        if len(samples) == 1:
            request.fail(*failure)
        else:
            for sample in samples:
                run_batch([sample])
        return
    results = results.tolist() if hasattr(results, "tolist") else results
    for sample, result, top in zip(samples, results, tops, strict=True):
        result = result if top is None else result[:top]
        if is_finite(result):
            sample.request.finish(sample.index, result)
        else:
            sample.request.fail("not_finite")


def is_finite(result: Any) -> bool:
    """Return whether all floats of a nested result are finite."""
    if isinstance(result, float):
        return math.isfinite(result)
    return not isinstance(result, list | tuple) or all(map(is_finite, result))
