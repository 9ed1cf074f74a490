"""What all stages share: user errors as one message, and files that are complete or absent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Run a stage: a user error, or a file that cannot be read or written, is one message."""
    escape_unencodable_output()
    prepare_process()
    with exit_on_user_error(f"pipelines.{name}"):
        try:
            yield
        except OSError as error:
            raise UserError(f"{error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; an interrupted stage leaves no part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read a JSON file of an earlier stage."""
    return json.loads(path.read_text(encoding="utf-8"))
