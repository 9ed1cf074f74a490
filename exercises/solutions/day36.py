"""Solutions of day 36."""

import math
from typing import Any


def batch_requests(
    requests: list[tuple[str, int]], max_tokens: int, max_batch: int
) -> list[list[str]]:
    batches: list[list[str]] = []
    longest = 0
    for name, tokens in requests:
        size = len(batches[-1]) + 1 if batches else 0
        cost = size * max(longest, tokens)
        if batches and size <= max_batch and cost <= max_tokens:
            batches[-1].append(name)
            longest = max(longest, tokens)
        else:
            batches.append([name])
            longest = tokens
    return batches


def percentile(latencies: list[float], percent: float) -> float:
    if not latencies or not 0 < percent <= 100:
        raise ValueError(f"cannot take the {percent}th percentile of {len(latencies)} latencies")
    rank = math.ceil(percent * len(latencies) / 100)
    return sorted(latencies)[rank - 1]


class TokenBucket:
    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens = float(burst)
        self.last: float | None = None

    def allow(self, now: float) -> bool:
        elapsed = 0.0 if self.last is None else now - self.last
        self.last = now
        self.tokens = min(self.burst, self.tokens + self.rate * elapsed)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def parse_request(body: dict[str, Any], max_texts: int = 8) -> list[str]:
    unknown = sorted(set(body) - {"texts"})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]}")
    texts = body.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("texts must be a list of strings")
    if not 1 <= len(texts) <= max_texts:
        raise ValueError(f"texts must have 1 to {max_texts} items, not {len(texts)}")
    return texts
