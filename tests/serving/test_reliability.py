"""Mutated requests, slow clients, idle connections and a minute of load."""

import contextlib
import json
import socket
import time
from urllib.parse import urlsplit

import pytest

from benchmarks.fuzz import fuzz
from benchmarks.serving.load import Server
from benchmarks.serving.models import image_bodies
from benchmarks.soak import soak
from tests.support.server import ServerProcess

IDLE = 200


def test_idle_connections_do_not_delay_requests(server):
    address = urlsplit(server.url)
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            connection = socket.create_connection((address.hostname, address.port), timeout=10)
            stack.enter_context(connection)
        started = time.monotonic()
        server.post("/v1/models/reviews/classify", {"inputs": ["a good film"]})
        assert time.monotonic() - started < 10


def test_a_client_that_sends_a_byte_a_second_is_refused_and_delays_nobody(sources, tmp_path):
    server = ServerProcess(
        tmp_path, "--checkpoint", sources["reviews"], "--name", "reviews", "--deadline", "3"
    )
    try:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
            head = f"POST /v1/models/reviews/classify HTTP/1.1\r\nHost: {address.netloc}\r\n"
            length = "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall((head + length).encode())
            connection.setblocking(False)
            answer = b""
            for _ in range(30):
                with contextlib.suppress(BlockingIOError):
                    answer += connection.recv(4096)
                if answer:
                    break
                connection.send(b"{")
                server.post("/v1/models/reviews/classify", {"inputs": ["a good film"]})
                time.sleep(1)
        assert answer.startswith(b"HTTP/1.1 408")
    finally:
        assert server.stop() == 0


@pytest.mark.slow
def test_mutated_requests_are_never_internal_errors(server):
    statuses, wrong = fuzz(server.http, 300)
    assert wrong == []
    assert statuses[422] + statuses[400] > 50
    assert statuses[200] > 20


@pytest.mark.slow
def test_a_minute_of_load_fails_no_request_and_leaks_no_memory(sources, tmp_path):
    server = ServerProcess(tmp_path, "--checkpoint", sources["digits"], "--name", "digits")
    try:
        url = f"{server.url}/v1/models/digits/classify"
        bodies = [json.dumps(body) for body in image_bodies(50)]
        started = time.monotonic()
        for body in bodies:
            server.post("/v1/models/digits/classify", json.loads(body))
        rate = 0.8 * len(bodies) / (time.monotonic() - started)  # of one client: far from overload
        result = soak(Server(server.process, url), bodies, rate, 60)  # type: ignore[arg-type]
    finally:
        assert server.stop() == 0
    assert result.failed == []
    assert len(result.latencies) > 30 * rate
    assert result.drift() < 0.05  # 2 % in half an hour; a minute includes first allocations
    assert result.percentile(99) < max(10 * result.percentile(50), 0.5)  # on a busy machine
