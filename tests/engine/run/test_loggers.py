"""Metrics, config and figures logged to trackers, read back from their files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from engine.run.record import git_commit
from tests.support import ROOT, TINY
from tests.support.wandb_files import overlay, read_wandb

TWO_EPOCHS = ("--config", TINY, "--trainer.max_epochs", 2, "--trainer.log_every_n_steps", 3)


def final_metrics(folder: Path) -> dict[str, float]:
    """The final metrics, without those of training, which are epoch means."""
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if not name.startswith("train/")}


@pytest.fixture
def wandb_run(run: Callable[..., Path], capfd) -> Iterator[tuple[Path, dict, str]]:
    """A run folder, the content of its W&B file, and stderr."""
    import wandb

    folder = run("fit", *TWO_EPOCHS, *overlay("wandb"))
    wandb.finish()
    yield folder, read_wandb(folder), capfd.readouterr().err
    wandb.teardown()


def test_wandb_offline_run_has_config_commit_and_metrics(
    wandb_run: tuple[Path, dict, str],
) -> None:
    folder, seen, stderr = wandb_run

    (line,) = [line for line in stderr.splitlines() if "offline" in line]
    assert "W&B runs offline" in line
    assert "anonymous" not in stderr
    assert "no API key" in line
    assert str(folder) in line

    assert (seen["project"], seen["name"]) == ("stepladder", "digits-tiny-001")
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    for key in ("model", "data", "seed_everything"):
        assert seen["config"][key] == resolved[key]
    assert seen["config"]["git_commit"] == git_commit()
    assert seen["config"]["versions"]["torch"]

    history = {key: [row[key] for row in seen["history"] if key in row] for key in keys(seen)}
    assert len(history["train/loss"]) == 2 * 9 // 3
    assert len(history["val/loss"]) >= 2
    for metric, value in final_metrics(folder).items():
        assert history[metric][-1] == pytest.approx(value)

    # Metrics are plotted over the trainer's step instead of W&B's.
    assert seen["axes"] == {"*": "trainer/global_step"}
    assert all("trainer/global_step" in row for row in seen["history"])
    assert [row["trainer/global_step"] for row in seen["history"] if "train/loss" in row][-1] == 17


def keys(seen: dict) -> set[str]:
    return {key for row in seen["history"] for key in row}


@pytest.mark.slow
def test_wandb_has_the_figures(run: Callable[..., Path]) -> None:
    import wandb

    more = ("--trainer.callbacks", "[{class_path: callbacks.ConfusionMatrix}]")
    folder = run("fit", *TWO_EPOCHS, *overlay("wandb"), *more)
    wandb.finish()
    seen = read_wandb(folder)
    wandb.teardown()
    assert [key for key in keys(seen) if "confusion_matrix" in key]
    images = [file for file in seen["files"] if file.startswith("media/images/")]
    assert images
    for image in images:
        assert (seen["folder"] / "files" / image).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_all_metrics(run: Callable[..., Path]) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = run("fit", *TWO_EPOCHS, *overlay("tensorboard"))
    seen = reader.EventAccumulator(str(folder / "tensorboard"))
    seen.Reload()
    assert "hp_metric" not in seen.Tags()["scalars"]
    for metric, value in final_metrics(folder).items():
        assert seen.Scalars(metric)[-1].value == pytest.approx(value)
    assert len(seen.Scalars("train/loss")) == 2 * 9 // 3


@pytest.mark.slow
def test_mlflow_has_metrics_parameters_and_commit(run: Callable[..., Path], runs: Path) -> None:
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


def test_second_csv_logger_writes_to_its_own_folder(run: Callable[..., Path], tmp_path) -> None:
    logger = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", tmp_path / "other")
    folder = run("fit", "--config", TINY, *logger, "--trainer.max_epochs", "1")
    (other,) = (tmp_path / "other").rglob("metrics.csv")
    assert "val/accuracy" in other.read_text()
    assert (folder / "results.json").exists()
    assert not other.with_name("config.yaml").exists()


def test_run_without_a_folder_is_not_tracked(run, tmp_path: Path) -> None:
    tracker = ROOT / "configs/logger/mlflow.yaml"
    assert run("fit", "--config", TINY, "--config", tracker, "--trainer.fast_dev_run", "1") is None
    assert list(tmp_path.iterdir()) == []


def test_logger_true_writes_only_into_the_run_folder(run, runs: Path, tmp_path: Path) -> None:
    folder = run("fit", *TWO_EPOCHS, "--trainer.logger", "true")
    assert (folder / "metrics.csv").is_file()
    assert list(tmp_path.iterdir()) == [runs]
