"""What the trackers were told is read back from their own files."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, TINY

from callbacks.run_record import git_commit

TWO_EPOCHS = ("--config", TINY, "--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 3)
BLOCK, HEADER = 32_768, struct.Struct("<IHB")  # LevelDB's log: checksum, length, type


def overlay(name: str) -> tuple[str, Path]:
    return "--config", ROOT / f"configs/logger/{name}.yaml"


def records(path: Path) -> Iterator[bytes]:
    """The records of a log file, pieced together from its blocks of 32 KiB."""
    data, position, parts = path.read_bytes(), 7, []  # 7 bytes ":W&B" and version before all
    assert data[:4] in (b":W&B", b"")
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:  # too little room for a header: zeros until the next block
            position += left
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        parts.append(data[position : position + length])
        position += length
        if kind in (1, 4):  # full, or the last of several; 2 is a first and 3 a middle part
            yield b"".join(parts)
            parts = []


def read_wandb(folder: Path) -> dict[str, Any]:
    """What the one W&B file in a run folder holds."""
    (found,) = read_all_wandb(folder)
    return found


def read_all_wandb(folder: Path, number: int = 1) -> list[dict[str, Any]]:
    """The W&B files in a run folder, one a process that logged, in order of time.

    W&B writes them by a process of its own, which may end after `wandb.finish` has returned.
    """
    limit = time.monotonic() + 60
    while True:
        paths = folder.glob("wandb/offline-run-*/*.wandb")
        found = [_read(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]
        if len(found) >= number and all(one["over"] for one in found):
            return found
        assert time.monotonic() < limit, "W&B has not ended its files"
        time.sleep(0.1)


def _read(path: Path) -> dict[str, Any]:
    """Run, configuration, history, axes, artifacts and files."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, Any] = {"config": {}, "history": [], "files": [], "folder": path.parent}
    found |= {"axes": {}, "artifacts": [], "over": False}
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
            found["over"] = True
        elif kind == "files":
            found["files"] += [file.path for file in record.files.files]
    return found


def final_metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "results.json").read_text())["metrics"]


@pytest.fixture
def wandb_run(run: Callable[..., Path], capfd) -> Iterator[tuple[Path, dict, str]]:
    """A run folder, what W&B's file in it says, and what stood on stderr."""
    import wandb

    folder = run("fit", *TWO_EPOCHS, *overlay("wandb"))
    wandb.finish()
    yield folder, read_wandb(folder), capfd.readouterr().err
    wandb.teardown()


def test_wandb_works_offline_and_carries_all_of_it(wandb_run: tuple[Path, dict, str]) -> None:
    folder, seen, told = wandb_run

    # It says so in one line.
    (line,) = [line for line in told.splitlines() if "offline" in line]
    assert "W&B stays offline" in line
    assert "no API key" in line
    assert str(folder) in line

    # Name, configuration and commit tell how to repeat it.
    assert (seen["project"], seen["name"]) == ("stepladder", "digits-tiny-001")
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    for key in ("model", "data", "seed_everything"):
        assert seen["config"][key] == resolved[key]
    assert seen["config"]["git_commit"] == git_commit()
    assert seen["config"]["versions"]["torch"]

    # Every metric of every stage, with the final values.
    history = {key: [row[key] for row in seen["history"] if key in row] for key in keys(seen)}
    assert len(history["train/loss"]) == 2 * 9 // 3
    assert len(history["val/loss"]) >= 2
    for metric, value in final_metrics(folder).items():
        assert history[metric][-1] == pytest.approx(value)

    # W&B's own step is no training step; the trainer's is there to plot against.
    assert seen["axes"] == {"*": "trainer/global_step"}
    assert all("trainer/global_step" in row for row in seen["history"])
    assert [row["trainer/global_step"] for row in seen["history"] if "train/loss" in row][-1] == 17


def keys(seen: dict) -> set[str]:
    return {key for row in seen["history"] for key in row}


def test_wandb_carries_the_pictures_too(run: Callable[..., Path]) -> None:
    callbacks = pytest.importorskip("callbacks")
    if not hasattr(callbacks, "ConfusionMatrix"):
        pytest.skip("there is no callback that draws pictures")
    import wandb

    more = ("--trainer.callbacks", "[{class_path: callbacks.ConfusionMatrix}]")
    folder = run("fit", *TWO_EPOCHS, *overlay("wandb"), *more)
    wandb.finish()
    seen = read_wandb(folder)
    wandb.teardown()
    assert [key for key in keys(seen) if "confusion_matrix" in key]
    pictures = [file for file in seen["files"] if file.startswith("media/images/")]
    assert pictures
    for picture in pictures:
        assert (seen["folder"] / "files" / picture).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_is_told_all_metrics(run: Callable[..., Path]) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = run("fit", *TWO_EPOCHS, *overlay("tensorboard"))
    seen = reader.EventAccumulator(str(folder / "tensorboard"))
    seen.Reload()
    for metric, value in final_metrics(folder).items():
        assert seen.Scalars(metric)[-1].value == pytest.approx(value)
    assert len(seen.Scalars("train/loss")) == 2 * 9 // 3


def test_mlflow_is_told_metrics_parameters_and_commit(run: Callable[..., Path], runs: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = run("fit", *TWO_EPOCHS, *overlay("mlflow"))
    client = mlflow.MlflowClient(f"sqlite:///{runs}/mlflow.db")
    experiment = client.get_experiment_by_name("stepladder")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "digits-tiny-001"
    assert found.info.status == "FINISHED"
    assert found.data.params["git_commit"] == git_commit()
    assert found.data.tags["mlflow.source.git.commit"] == git_commit()
    assert found.data.params["data/class_path"] == "datamodules.Digits"
    for metric, value in final_metrics(folder).items():
        assert found.data.metrics[metric] == pytest.approx(value)
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2 * 9 // 3


def test_another_table_of_metrics_may_lie_elsewhere(run: Callable[..., Path], tmp_path) -> None:
    logger = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", tmp_path / "other")
    folder = run("fit", "--config", TINY, *logger, "--trainer.max_epochs", "1")
    (other,) = (tmp_path / "other").rglob("metrics.csv")
    assert "val/accuracy" in other.read_text()
    assert (folder / "results.json").exists()
    assert not other.with_name("config.yaml").exists()


def test_a_run_without_a_folder_is_not_tracked(run, tmp_path: Path) -> None:
    tracker = ROOT / "configs/logger/mlflow.yaml"
    assert run("fit", "--config", TINY, "--config", tracker, "--trainer.fast_dev_run", "1") is None
    assert list(tmp_path.iterdir()) == []
