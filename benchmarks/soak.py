"""Endurance of the server: `python -m benchmarks.soak [--minutes 30]`.

The digits classifier of benchmarks.serving is loaded with 80 % of the requests per second that it
answers at 32 clients. Requests are sent at fixed times, whether or not earlier ones were answered,
by clients that reuse their connections. The report has the failed requests, latencies, and the
drift of the resident memory of all processes from the fifth minute (or the first sixth) on.
"""

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.serving.load import Server, our_server, wrk
from benchmarks.serving.models import image_bodies, make_models, write_bodies

CLIENTS = 16
FRACTION = 0.8  # of the capacity
SETTLED = 300  # seconds after which memory must not grow
SAMPLES = 5  # measurements of memory whose median is compared


@dataclass
class Soak:
    """Latencies in seconds, failed requests, and the memory in MB over time."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MB

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    def drift(self) -> float:
        """Return the relative growth of memory after the first minutes."""
        settled = min(SETTLED, self.memory[-1][0] / 6)
        values = [memory for seconds, memory in self.memory if seconds >= settled]
        first, last = values[:SAMPLES], values[-SAMPLES:]
        return statistics.median(last) / statistics.median(first) - 1


def soak(server: Server, bodies: Sequence[str], rate: float, seconds: float) -> Soak:
    """Send requests at a fixed rate.

    Args:
        server: The server.
        bodies: Bodies of requests, which are sent in turn.
        rate: Requests per second of all clients.
        seconds: Duration.
    """
    result = Soak()
    started = time.monotonic()

    def client(number: int) -> None:
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        turn = number
        while (planned := turn / rate) < seconds:
            time.sleep(max(0.0, started + planned - time.monotonic()))
            sent = time.monotonic()
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", address.path, bodies[turn % len(bodies)], headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    result.failed.append(f"{response.status} {answer[:200]!r}")
            except OSError as error:
                result.failed.append(repr(error))
                connection.close()
            result.latencies.append(time.monotonic() - sent)
            turn += CLIENTS
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        result.memory.append((time.monotonic() - started, server.memory()))
        threads[0].join(seconds / 60)
    for thread in threads:
        thread.join()
    return result


def main(args: list[str] | None = None) -> Soak:
    """Run the command line and print one line with the result."""
    parser = argparse.ArgumentParser("benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        source = make_models(Path(folder), names=("digits",))["digits"]
        bodies = write_bodies(image_bodies(100), Path(folder, "bodies"))
        with our_server(source) as server:
            capacity = wrk(server.url, bodies, 32, 5).rate
            lines = bodies.read_text().splitlines()
            result = soak(server, lines, FRACTION * capacity, 60 * options.minutes)
    p50, p99 = result.percentile(50), result.percentile(99)
    print(
        f"{len(result.latencies):,} requests at {FRACTION * capacity:,.0f} per second, "
        f"{len(result.failed)} failed; p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms "
        f"({p99 / p50:.1f} x); memory {result.memory[-1][1]:,.0f} MB, drift {result.drift():+.2%}"
    )
    return result


if __name__ == "__main__":
    main()
