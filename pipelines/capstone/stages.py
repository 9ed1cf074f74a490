"""Stages whose results are kept: a stage runs again only if its inputs have changed."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.files import read_json, write_json

Result = dict[str, Any]


class Stages:
    """Run stages in order.

    Args:
        folder: Folder of the results, one JSON file for each stage.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def run(self, name: str, inputs: Any, make: Callable[[], Result]) -> Result:
        """Return the result of a stage, made anew if its inputs differ from those of the last run.

        Args:
            name: Name of the stage.
            inputs: All that the result depends on, as plain values: settings, earlier results.
            make: Makes the result.
        """
        path = self.folder / f"{name}.json"
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        if path.is_file():
            kept = read_json(path)
            if kept["key"] == key:
                print(f"{name}: unchanged")
                self.seconds[name] = kept["seconds"]
                return dict(kept["result"])
            path.unlink()  # not valid any more, even if this run is interrupted
        print(f"{name} …", flush=True)
        started = time.monotonic()
        result = make()
        self.seconds[name] = round(time.monotonic() - started, 1)
        write_json(path, {"key": key, "seconds": self.seconds[name], "result": result})
        print(f"{name}: {self.seconds[name]:.0f} s", flush=True)
        return result
