"""Load at planned times: what a slow server does to the latencies."""

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from benchmarks.serving.load import Server
from benchmarks.soak import soak

SERVICE = 0.02  # seconds


class Slow(BaseHTTPRequestHandler):
    """Answer after a fixed time."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(SERVICE)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    process = SimpleNamespace(pid=os.getpid())
    yield Server(process, f"http://127.0.0.1:{http.server_port}/")  # type: ignore[arg-type]
    http.shutdown()
    thread.join()
    http.server_close()


def test_a_request_that_waits_for_its_client_is_slow_since_it_was_planned(server: Server) -> None:
    since_planned, since_sent = (
        soak(server, ["{}"], rate=500, seconds=0.1, clients=1, since_planned=planned)
        for planned in (True, False)
    )
    assert len(since_planned.latencies) == len(since_sent.latencies) == 50
    # 50 requests of one client take 50 service times, all but the last of the planned 0.1 s.
    assert since_planned.percentile(99) > 50 * SERVICE - 0.1
    assert since_sent.percentile(50) < 10 * SERVICE
