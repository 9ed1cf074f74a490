"""A real MLflow server, and `mlflow models serve`, on the loopback address."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support import ROOT
from tests.support.system import START_SECONDS, free_port


@contextmanager
def mlflow_process(folder: Path, health: str, *arguments: str, uri: str = "") -> Iterator[str]:
    """Run a command of mlflow until the end of the block, and yield its address.

    Args:
        folder: Folder of its log.
        health: Path that answers 200 once it is ready.
        *arguments: Arguments of the command, without host and port.
        uri: MLFLOW_TRACKING_URI of the command.
    """
    port = free_port()
    log = folder / f"mlflow-{arguments[0]}.log"
    settings = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    settings |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    settings |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    folders = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    settings |= {"PATH": folders, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "-p", str(port)],
            stdout=file,
            stderr=file,
            start_new_session=True,  # its own workers end with it
            env=os.environ | settings,
        )
    url, limit = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            try:
                if httpx.get(url + health).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
