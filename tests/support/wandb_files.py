"""Read W&B's offline files."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import ROOT

BLOCK, HEADER = 32_768, struct.Struct("<IHB")  # LevelDB's log format: checksum, length, type


def overlay(name: str) -> tuple[str, Path]:
    return "--config", ROOT / f"configs/logger/{name}.yaml"


def records(path: Path) -> Iterator[bytes]:
    """Yield the records of a log file, joined across its blocks of 32 KiB."""
    data, parts = path.read_bytes(), []
    position = 7  # after ":W&B" and the version
    assert data[:4] in (b":W&B", b"")
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:  # too few bytes for a header: zeros until the next block
            position += left
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        parts.append(data[position : position + length])
        position += length
        if kind in (1, 4):  # 1: complete record, 2: first part, 3: middle part, 4: last part
            yield b"".join(parts)
            parts = []


def read_wandb(folder: Path) -> dict[str, Any]:
    """Return the content of the only W&B file in a run folder."""
    (found,) = read_all_wandb(folder)
    return found


def read_all_wandb(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    """Return the content of the W&B files in a run folder, one per process, oldest first.

    A separate process of W&B writes them; it may still be writing after `wandb.finish` returned.
    """
    limit = time.monotonic() + 60
    while True:
        paths = folder.glob("wandb/offline-run-*/*.wandb")
        found = [_read(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]
        if len(found) >= number and all(file["complete"] for file in found):
            return found
        assert time.monotonic() < limit, "W&B did not complete its files"
        time.sleep(0.1)


def _read(path: Path) -> dict[str, Any]:
    """Return run, configuration, history, axes, artifacts and files."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"config": {}, "history": [], "files": [], "folder": path.parent}
    found |= {"axes": {}, "artifacts": [], "complete": False}
    for data in records(path):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"project": record.run.project, "name": record.run.display_name}
            found["id"] = record.run.run_id
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "config":
            found["config"] |= {u.key: json.loads(u.value_json) for u in record.config.update}
        elif kind == "history":
            row = {".".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            found["history"].append({key: json.loads(value) for key, value in row.items()})
        elif kind == "metric" and record.metric.step_metric:
            found["axes"][record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            found["artifacts"].append(record.artifact)
        elif kind == "request":
            found["artifacts"] += [record.request.log_artifact.artifact]
        elif kind == "exit":
            found["complete"] = True
        elif kind == "files":
            found["files"] += [file.path for file in record.files.files]
    return found
