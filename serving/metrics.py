"""Prometheus metrics of the server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "stepladder_requests", "Requests by route and status", ["route", "status"],
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "stepladder_request_seconds", "Seconds from the request to the end of the response",
            ["route"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.errors = Counter("stepladder_errors", "Errors by kind", ["kind"], registry=registry)
        self.queue_depth = Gauge(
            "stepladder_queue_depth", "Samples that were accepted and not answered yet",
            registry=registry,
        )  # fmt: skip
        self.batch_size = Histogram(
            "stepladder_batch_size", "Samples of a batch", buckets=SIZES, registry=registry
        )
        self.tokens = Counter("stepladder_generated_tokens", "Generated tokens", registry=registry)
        self.answers = Counter(
            "stepladder_answers", "Answers from documents by outcome", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.refused = Counter(
            "stepladder_refused", "Inputs and outputs that the guard refused", ["stage"],
            registry=registry,
        )  # fmt: skip
        self.restarts = Counter(
            "stepladder_worker_restarts", "Worker processes that died", registry=registry
        )
