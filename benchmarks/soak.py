"""Endurance of the server: `python -m benchmarks.soak [--minutes 30] [--idle 5000]`.

The digits classifier of benchmarks.serving is loaded with 80 % of the requests per second that it
answers at 32 clients. Requests are sent at fixed times, whether or not earlier ones were answered,
by clients that reuse their connections. The report has the failed requests, latencies, and the
drift of the resident memory of all processes from the fifth minute (or the first sixth) on. The
clients are threads of one Python process: where they cannot send as fast as planned, the report
has the rate that they reached.

`--model texts --load 2` loads the MiniLM classifier with twice its capacity: its queue is full, and
the report has the goodput, which is the rate of answers with status 200 relative to the capacity.
`--idle N` keeps N further connections open that send nothing.
"""

import argparse
import http.client
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.serving.load import Server, our_server, wrk
from benchmarks.serving.models import image_bodies, make_models, text_bodies, write_bodies

CLIENTS = 16
OVERLOADED_CLIENTS = 128
QUEUE = ("--queue_size", "64")  # samples that wait under overload
SETTLED = 300  # seconds after which memory must not grow
SAMPLES = 5  # measurements of memory whose median is compared


@dataclass
class Soak:
    """Latencies of answers in seconds, failed and refused requests, and the memory in MB."""

    latencies: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    refused: int = 0  # with status 429
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


def soak(
    server: Server,
    bodies: Sequence[str],
    rate: float,
    seconds: float,
    clients: int = CLIENTS,
    since_planned: bool = False,
) -> Soak:
    """Send requests at a fixed rate.

    Args:
        server: The server.
        bodies: Bodies of requests, which are sent in turn.
        rate: Requests per second of all clients.
        seconds: Duration.
        clients: Number of connections.
        since_planned: Count a latency from the time at which its request was to be sent, so that
            requests that wait for a client behind a slow one are slow, too (without it they look
            fast: coordinated omission). Only for rates that the clients can send.
    """
    result = Soak()
    started = time.monotonic()

    def client(number: int) -> None:
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        turn = number
        while (planned := turn / rate) < seconds:
            time.sleep(max(0.0, started + planned - time.monotonic()))
            sent = started + planned if since_planned else time.monotonic()
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", address.path, bodies[turn % len(bodies)], headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status == 200:
                    result.latencies.append(time.monotonic() - sent)
                elif response.status == 429:
                    result.refused += 1
                else:
                    result.failed.append(f"{response.status} {answer[:200]!r}")
            except OSError as error:
                result.failed.append(repr(error))
                connection.close()
            turn += clients
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        result.memory.append((time.monotonic() - started, server.memory()))
        threads[0].join(seconds / 60)
    for thread in threads:
        thread.join()
    result.memory.append((time.monotonic() - started, server.memory()))
    return result


@contextmanager
def idle_connections(server: Server, number: int) -> Iterator[None]:
    """Keep connections open that send nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, number + 1000)), hard))
    address = urlsplit(server.url)
    with ExitStack() as stack:
        for _ in range(number):
            connection = socket.create_connection((address.hostname, address.port), timeout=30)
            stack.enter_context(connection)
        yield


def main(args: list[str] | None = None) -> Soak:
    """Run the command line and print one line with the result."""
    parser = argparse.ArgumentParser("benchmarks.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", choices=("digits", "texts"), default="digits")
    parser.add_argument("--load", type=float, default=0.8, help="requests relative to the capacity")
    parser.add_argument("--idle", type=int, default=0, help="connections that send nothing")
    options = parser.parse_args(args)
    overloaded = options.load > 1
    with tempfile.TemporaryDirectory() as folder:
        source = make_models(Path(folder), names=(options.model,))[options.model]
        requests = image_bodies(100) if options.model == "digits" else text_bodies(100)
        bodies = write_bodies(requests, Path(folder, "bodies"))
        with our_server(source, "classify", *(QUEUE if overloaded else ())) as server:
            wrk(server.url, bodies, 32, 2)  # warm up
            capacity = wrk(server.url, bodies, 32, 10).rate
            rate, seconds = options.load * capacity, 60 * options.minutes
            clients = OVERLOADED_CLIENTS if overloaded else CLIENTS
            with idle_connections(server, options.idle):
                lines = bodies.read_text().splitlines()
                result = soak(server, lines, rate, seconds, clients)
    p50, p99 = result.percentile(50), result.percentile(99)
    elapsed = result.memory[-1][0]
    sent = (len(result.latencies) + result.refused + len(result.failed)) / elapsed
    goodput = len(result.latencies) / elapsed / capacity
    print(
        f"{options.model}, {len(result.latencies):,} answers in {elapsed:,.0f} s beside "
        f"{options.idle:,} idle connections: {sent:,.1f} requests per second were sent, "
        f"{sent / capacity:.2f} x the capacity ({options.load:g} x planned), "
        f"{len(result.failed)} failed, {result.refused:,} refused, goodput {goodput:.0%} of the "
        f"capacity; p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms ({p99 / p50:.1f} x); memory "
        f"{result.memory[-1][1]:,.0f} MB, drift {result.drift():+.2%}"
    )
    return result


if __name__ == "__main__":
    main()
