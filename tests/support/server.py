"""A server in a process of its own, forked from one that has imported torch and runs nothing.

A fork of the test process itself would inherit its threads' locks and its tensors.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

import serve
from serving.worker import __main__ as worker
from serving.worker import client, generating, trained
from tests.support import ROOT
from tests.support.system import START_SECONDS

IMPORTED = (generating, trained)  # before the fork: a worker imports them when it needs torch
KEYS = {"client": "a-secret", "admin": "another-secret"}


def arguments(sources: dict[str, Path]) -> list[str]:
    """Return the arguments of serve.py for models."""
    return [
        part
        for name, path in sources.items()
        for part in ("--checkpoint", str(path), "--name", name)
    ]


def _is_socket(descriptor: Path) -> bool:
    try:
        return descriptor.readlink().name.startswith("socket:")
    except FileNotFoundError:  # the descriptor by which the folder itself was read
        return False


class ForkedWorker:
    """A forked worker process with the methods of subprocess.Popen that the server uses."""

    def __init__(self, connection: socket.socket) -> None:
        self.process = multiprocessing.get_context("fork").Process(
            target=self._run, args=(connection,)
        )
        self.process.start()
        self.pid = self.process.pid
        self.kill = self.process.kill

    @staticmethod
    def _run(connection: socket.socket) -> None:
        # The worker ends when the server closes its end of the connection, so it must hold no copy
        # of that end. Other descriptors may belong to shared memory of tensors and stay open.
        for entry in list(Path("/proc/self/fd").iterdir()):
            if int(entry.name) != connection.fileno() and _is_socket(entry):
                os.close(int(entry.name))
        worker.main(connection)

    def wait(self, timeout: float | None = None) -> None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)


class ServerProcess:
    """`serve.py` with the given arguments on a free port, until `stop`.

    Args:
        folder: Folder of its output.
        arguments: Arguments of serve.py.
    """

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output, self.log = folder / "stdout.txt", folder / "stderr.txt"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        command = [*map(str, arguments), "--port", "0"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))  # of the process that is forked
            self.process = context.Process(
                target=run_server, args=(command, self.output, self.log, dict(os.environ))
            )
            self.process.start()
        limit = time.monotonic() + START_SECONDS
        while not (found := re.search(r"Serving .* at (http://\S+)", self._read(self.output))):
            assert self.process.is_alive(), self._read(self.log)
            assert time.monotonic() < limit, "the server does not start"
            time.sleep(0.02)
        self.url = found[1]
        self.http = httpx.Client(base_url=self.url, timeout=START_SECONDS)

    @staticmethod
    def _read(path: Path) -> str:
        return path.read_text() if path.is_file() else ""

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """Return the answer of a successful request."""
        response = self.http.post(path, json=body, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def workers(self) -> list[int]:
        """Return the ids of the processes that the server started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in children.read_text().split()]

    def stop(self) -> int | None:
        """Send SIGTERM and return the exit code; no process is left."""
        workers = self.workers()
        os.kill(self.process.pid or 0, signal.SIGTERM)
        self.process.join(START_SECONDS)
        code = self.process.exitcode
        self.http.close()
        for number in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
                raise AssertionError(f"the worker {number} was left behind")
        return code


def run_server(
    arguments: list[str], output: Path, log: Path, environment: dict[str, str]
) -> NoReturn:
    """Run serve.py in this process, with its output in files, and end the process."""
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((output, 1), (log, 2)):
        with path.open("w") as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    client.start_process = ForkedWorker  # type: ignore[assignment, misc]
    code: Any = 1
    try:
        serve.main(arguments)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
