"""Run serve.py in a process of its own for a stage."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import UserError

ROOT = Path(__file__).parent.parent


@contextmanager
def served(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process of serve.py on a free port of the loopback address, and its URL.

    Raises:
        UserError: If it does not start.
    """
    command = [sys.executable, str(ROOT / "serve.py"), *map(str, arguments), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert server.stdout is not None
        found = re.search(r"at (http://\S+)", server.stdout.readline())
        if found is None:
            raise UserError(f"serve.py does not start: exit code {server.wait()}.")
        yield server, found[1]
    finally:
        server.terminate()
        server.wait()
