"""Day 40: project 4: calibrated answers, capacity and protection of a text-classification API."""

import numpy as np


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T > 0 that minimizes the mean cross-entropy of softmax(logits / T).

    Derive the gradient with respect to 1 / T, in which the loss is convex. The relative error of T
    must be below 1e-3.

    Args:
        logits: Outputs on the validation data, (N, C).
        labels: Classes, (N,).

    Source: Guo et al. 2017 (arXiv:1706.04599), section 4.2.
    """
    raise NotImplementedError


def workers_needed(rate: float, seconds: float, batch: int, utilization: float = 0.7) -> int:
    """Return the number of workers that a load needs.

    A worker answers a batch of `batch` requests in `seconds`. By Little's law the mean number of
    busy workers is rate · seconds / batch; it must not exceed the utilization times the workers.

    Args:
        rate: Requests per second, > 0.
        seconds: Time of a batch.
        batch: Requests of a batch.
        utilization: Fraction of the time that a worker may be busy.

    Source: Little 1961, A proof for the queuing formula L = λ W.
    """
    raise NotImplementedError


class LeastRecentlyUsed:
    """A cache of answers that forgets the one that was not used for the longest time.

    Args:
        size: Most entries, at least 1.
    """

    def __init__(self, size: int) -> None:
        raise NotImplementedError

    def get(self, key: str) -> str | None:
        """Return the answer of a request, which counts as a use, or None."""
        raise NotImplementedError

    def put(self, key: str, answer: str) -> None:
        """Store an answer, which counts as a use; an earlier one of the key is replaced."""
        raise NotImplementedError


class CircuitBreaker:
    """Stop calling a model that fails, and try it again after a while.

    closed: calls are allowed; `threshold` failures in a row open it. open: calls are refused until
    `timeout` seconds have passed since it opened. Then one call is allowed (half-open): its success
    closes the breaker, its failure opens it for another timeout; until its result others are
    refused.

    Args:
        threshold: Failures in a row.
        timeout: Seconds.

    Source: Nygard 2018, Release It!, chapter 5.
    """

    def __init__(self, threshold: int, timeout: float) -> None:
        raise NotImplementedError

    def allow(self, now: float) -> bool:
        """Return whether a call may be made at time `now`, in seconds."""
        raise NotImplementedError

    def record(self, success: bool, now: float) -> None:
        """Record the result of an allowed call."""
        raise NotImplementedError
