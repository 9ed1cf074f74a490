"""Typical wrong solutions of day 36."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "batch_requests", "size * max(longest, tokens)", "size * longest", "include it in the cost"
    ),
    Mistake(
        "batch_requests",
        "cost = size * max(longest, tokens)\n        if batches and size <= max_batch and cost <= max_tokens:\n            batches[-1].append(name)\n            longest = max(longest, tokens)",
        "cost = longest + tokens\n        if batches and size <= max_batch and cost <= max_tokens:\n            batches[-1].append(name)\n            longest += tokens",
        "padding counts",
    ),
    Mistake("batch_requests", "size <= max_batch", "size <= max_batch + 1", "not one more"),
    Mistake("batch_requests", "size <= max_batch and", "True and", "number of requests is limited"),
    Mistake("percentile", "sorted(latencies)", "latencies", "sort the latencies"),
    Mistake("percentile", "[rank - 1]", "[min(rank, len(latencies) - 1)]", "indices at 0"),
    Mistake("percentile", "not latencies or not 0 < percent <= 100", "False", "ValueError"),
    Mistake(
        "TokenBucket",
        "min(self.burst, self.tokens + self.rate * elapsed)",
        "self.tokens + self.rate * elapsed",
        "however long the pause",
    ),
    Mistake("TokenBucket", "self.tokens = float(burst)", "self.tokens = 0.0", "full at the start"),
    Mistake(
        "TokenBucket",
        "self.tokens + self.rate * elapsed",
        "self.tokens + int(self.rate * elapsed)",
        "must not lose the time",
    ),
    Mistake(
        "parse_request",
        "not isinstance(texts, list) or not all",
        "not texts or not all",
        "a string is a sequence",
    ),
    Mistake("parse_request", "if unknown", "if False", "misspelled option"),
    Mistake("parse_request", "1 <= len(texts)", "0 <= len(texts)", "for an empty list"),
]
