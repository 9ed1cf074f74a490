"""Start servers and send them requests."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from engine.errors import UserError

START_SECONDS = 180
SCRIPT = """
local bodies, index = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
wrk.headers["Content-Type"] = "application/json"
request = function()
  index = index % #bodies + 1
  return wrk.format("POST", nil, nil, bodies[index])
end
done = function(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


@dataclass
class Load:
    """What a load generator measured."""

    requests: int
    seconds: float
    p50: float  # milliseconds
    p99: float  # milliseconds
    failed: int

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return (self.requests - self.failed) / self.seconds


@dataclass
class Server:
    """A server process and the address of the operation to measure."""

    process: subprocess.Popen[str]
    url: str

    def memory(self) -> float:
        """Return the resident memory of the process and its children in MB."""
        pids, total = [self.process.pid], 0.0
        while pids:
            pid = pids.pop()
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in path.read_text().split()]
            found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) / 1e3 if found else 0.0
        return total


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def our_server(source: str | Path, operation: str = "classify", *options: str) -> Iterator[Server]:
    """Run serve.py with one CPU thread."""
    port = free_port()
    arguments = ["serve.py", "--checkpoint", str(source), "--name", "model", "--threads", "1"]
    command = [sys.executable, *arguments, "--port", str(port), "--log_file", os.devnull, *options]
    url = f"http://127.0.0.1:{port}"
    with _running(command, f"{url}/readyz") as process:
        yield Server(process, f"{url}/v1/models/model/{operation}")


@contextmanager
def reference_server(kind: str, source: Path) -> Iterator[Server]:
    """Run a server of references.py."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving.references", kind, str(source), str(port)]
    ready = "health" if kind == "litserve" else "openapi.json"
    with _running(command, f"http://127.0.0.1:{port}/{ready}") as process:
        yield Server(process, f"http://127.0.0.1:{port}/predict")


@contextmanager
def _running(command: list[str], ready: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            _wait(process, ready, output)
            yield process
        finally:
            # The group, because LitServe leaves its workers running.
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(10)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def _wait(process: subprocess.Popen[str], ready: str, output: Any) -> None:
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit:
        if process.poll() is not None:
            output.seek(0)
            raise UserError(f"the server {process.args!r} ended: {output.read()[-2000:]}")
        try:
            if httpx.get(ready, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise UserError(f"the server {process.args!r} did not start within {START_SECONDS} seconds.")


def wrk(url: str, bodies: Path, clients: int, seconds: float) -> Load:
    """Send requests from a number of clients, each of which waits for its answer.

    Raises:
        UserError: If wrk is not installed.
    """
    if shutil.which("wrk") is None:
        raise UserError("the benchmark needs the program wrk: apt-get install wrk.")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "30s"]
        result = subprocess.run(
            [*command, "-s", script.name, url],
            env={**os.environ, "BODIES": str(bodies)},
            check=True,
            capture_output=True,
            text=True,
        )
    line = next(row for row in result.stdout.splitlines() if row.startswith("RESULT "))
    return Load(**json.loads(line.removeprefix("RESULT ")))
