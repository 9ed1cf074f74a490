"""Slow clients and idle connections."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

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
