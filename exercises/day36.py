"""Day 36: the parts of a model server: batching, percentiles, rate limits, validated requests."""

from typing import Any


def batch_requests(
    requests: list[tuple[str, int]], max_tokens: int, max_batch: int
) -> list[list[str]]:
    """Group waiting requests into batches that respect a budget of tokens, in the order of arrival.

    All requests of a batch are padded to its longest, so a batch of B requests with at most T
    tokens costs B · T. A request goes into the current batch if the batch then costs at most
    `max_tokens` and has at most `max_batch` requests; otherwise it begins the next one. A request
    that is longer than `max_tokens` on its own is served alone.

    Args:
        requests: Id and number of tokens of each request, oldest first.
        max_tokens: Most padded tokens of a batch.
        max_batch: Most requests of a batch.

    Returns:
        The ids of each batch.
    """
    raise NotImplementedError


def percentile(latencies: list[float], percent: float) -> float:
    """Return a percentile of latencies by the nearest rank, so that it is one of them.

    The smallest latency that at least `percent` % of the requests do not exceed.

    Args:
        latencies: Seconds of each request, in any order.
        percent: Number in (0, 100].

    Raises:
        ValueError: If there are no latencies or `percent` is not in (0, 100].
    """
    raise NotImplementedError


class TokenBucket:
    """A rate limit: `rate` requests per second on average, and up to `burst` at once.

    The bucket holds at most `burst` tokens and is full at the start; tokens are added at `rate` per
    second. A request needs one token.

    Args:
        rate: Tokens per second.
        burst: Most tokens in the bucket.
    """

    def __init__(self, rate: float, burst: int) -> None:
        raise NotImplementedError

    def allow(self, now: float) -> bool:
        """Return whether a request at time `now` (seconds, never decreasing) is allowed."""
        raise NotImplementedError


def parse_request(body: dict[str, Any], max_texts: int = 8) -> list[str]:
    """Return the texts of a request such as {"texts": ["a", "b"]}.

    Args:
        body: The parsed JSON of a request.
        max_texts: Most texts of a request.

    Raises:
        ValueError: If "texts" is missing, is not a list of 1 to `max_texts` strings, or another
            field is present; the message names the field. The server answers with status 422.
    """
    raise NotImplementedError
