"""Write a sample of the inputs and results to a file, for scripts.monitor. Off by default."""

import base64
import json
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

from serving.errors import StartError
from serving.settings import Settings

log = logging.getLogger("serving.samples")


class InputSamples:
    """A file of JSON lines: id, time, model, version, operation, inputs and results.

    Args:
        settings: Settings of the server; without `samples_file` nothing is written.

    Raises:
        StartError: If the file cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        self.fraction = settings.samples_fraction if settings.samples_file else 0.0
        self._random = random.Random()
        if settings.samples_file is None:
            return
        path = settings.samples_file.expanduser()
        try:
            handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise StartError(f"--samples_file: cannot write {path}: {error}") from error
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.INFO)

    def add(
        self,
        identity: str,
        version: str,
        operation: str,
        inputs: Sequence[Any],
        files: Sequence[bytes],
        results: Sequence[Any],
    ) -> None:
        """Write a request, with the probability `samples_fraction`; images as base64."""
        if not self.fraction or self._random.random() >= self.fraction:
            return
        name, _, number = version.rpartition("@")
        line = {
            "id": identity,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "model": name,
            "version": int(number),
            "operation": operation,
            "inputs": [
                {"image": base64.b64encode(files[one["image"]]).decode()}
                if isinstance(one, dict)
                else one
                for one in inputs
            ],
            "results": results,
        }
        log.info(json.dumps(line))
