"""Solutions of day 40."""

import math
from collections import OrderedDict

import numpy as np


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    chosen = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        scaled = inverse * logits
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return float(((p * logits).sum(axis=1) - chosen).mean())

    low, high = 1e-4, 1e4  # of 1 / T; the slope increases with it
    for _ in range(60):
        middle = math.sqrt(low * high)
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
    return 1 / math.sqrt(low * high)


def workers_needed(rate: float, seconds: float, batch: int, utilization: float = 0.7) -> int:
    return math.ceil(rate * seconds / batch / utilization)


class LeastRecentlyUsed:
    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        if key not in self.entries:
            return None
        self.entries.move_to_end(key)
        return self.entries[key]

    def put(self, key: str, answer: str) -> None:
        self.entries[key] = answer
        self.entries.move_to_end(key)
        if len(self.entries) > self.size:
            self.entries.popitem(last=False)


class CircuitBreaker:
    def __init__(self, threshold: int, timeout: float) -> None:
        self.threshold, self.timeout = threshold, timeout
        self.failures = 0
        self.opened: float | None = None
        self.trying = False

    def allow(self, now: float) -> bool:
        if self.opened is None:
            return True
        if self.trying or now - self.opened < self.timeout:
            return False
        self.trying = True
        return True

    def record(self, success: bool, now: float) -> None:
        if success:
            self.failures, self.opened = 0, None
        else:
            self.failures += 1
            if self.trying or self.failures >= self.threshold:
                self.opened = now
        self.trying = False
