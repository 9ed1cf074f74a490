"""The log of requests: one line of JSON for each."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from serving.errors import StartError


class RequestsLog:
    """Lines of JSON in a file or on stderr; a full disk does not fail requests.

    The logging module takes longer for a line than the rest of the middleware for its request.

    Args:
        path: File to append to; stderr by default.

    Raises:
        StartError: If the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = sys.stderr
        if path is not None:
            try:
                self._file = path.expanduser().open("a", buffering=1, encoding="utf-8")
            except OSError as error:
                raise StartError(f"--log_file: cannot write {path}: {error}") from error

    def write(self, **values: Any) -> None:
        """Write the values that are not None."""
        kept = {name: value for name, value in values.items() if value is not None}
        with contextlib.suppress(OSError):
            self._file.write(f"{json.dumps(kept)}\n")
