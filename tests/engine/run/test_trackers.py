"""A resumed run continues the same run at its trackers; the best checkpoint is an artifact."""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.command_line import CLI
from engine.run.record import git_commit
from engine.run.trackers import ID_ARGUMENTS, fill_placeholders, read_ids
from tests.support import TINY
from tests.support.resume import Crash, crash_after
from tests.support.wandb_files import overlay, read_all_wandb

Run = Callable[..., Path]
SHORT = (
    *("--config", TINY, "--trainer.max_epochs", 2, "--trainer.limit_train_batches", 6),
    *("--trainer.log_every_n_steps", 1, "--checkpoint.every_n_steps", 3),
    *("--test_after_fit", "false", "--experiment", "short"),
)
WITHOUT_CRASH = ("--trainer.callbacks", "null")
BOTH = (*overlay("wandb"), *overlay("mlflow"))


def mlflow_runs(runs: Path) -> tuple[Any, list[Any]]:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{runs}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name("stepladder").experiment_id])


def losses(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(row["trainer/global_step"], row["train/loss"]) for row in rows if "train/loss" in row]


@pytest.mark.slow
def test_resumed_run_continues_the_same_run_at_all_trackers(
    run: Run, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.02")
    with pytest.raises(Crash):
        run("fit", *SHORT, *BOTH, *crash_after(8))
    folder = runs / "short/001"
    ids = read_ids(folder)
    assert set(ids) == {"WandbLogger", "MLFlowLogger"}
    client, (stopped,) = mlflow_runs(runs)
    assert stopped.info.status == "FAILED"

    time.sleep(1.1)  # W&B names folders by the second; two in the same second would be one
    # MLflow cannot overwrite a parameter, such as the number of epochs.
    longer = ("--trainer.max_epochs", 3, "--tracking.best_as_artifact", "true")
    assert run("fit", "--resume", folder, *WITHOUT_CRASH, *longer) == folder

    # W&B: a second folder of the same run. Step 6 is logged twice with the same value.
    first, second = read_all_wandb(folder, 2)
    assert first["id"] == second["id"] == ids["WandbLogger"][0]
    before, again = losses(first["history"]), losses(second["history"])
    assert [step for step, _ in before] == list(range(7))
    assert [step for step, _ in again] == list(range(6, 18))
    assert before[6:] == again[:1]
    assert second["config"]["trainer"]["max_epochs"] == 3
    assert second["config"]["git_commit"] == git_commit()
    best = (folder / "checkpoints/best.ckpt").stat().st_size
    (artifact,) = second["artifacts"]
    assert (artifact.name, sorted(artifact.aliases)) == (
        f"model-{second['id']}",
        ["best", "latest"],
    )
    assert [(entry.path, entry.size) for entry in artifact.manifest.contents] == [
        ("best.ckpt", best)
    ]
    assert not first["artifacts"]

    # MLflow: one run with all steps.
    client, (found,) = mlflow_runs(runs)
    assert [found.info.run_id] == ids["MLFlowLogger"]
    assert found.info.status == "FINISHED"
    assert found.data.params["trainer/max_epochs"] == "2"
    assert found.data.tags["trainer/max_epochs"] == "3"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == sorted([*range(18), 6])
    assert len({(metric.step, metric.value) for metric in history}) == 18
    assert "system/cpu_utilization_percentage" in found.data.metrics
    (given,) = found.inputs.dataset_inputs  # logged twice, and the same
    checksum = json.loads((folder / "results.json").read_text())["data_checksum"]
    assert (given.dataset.name, given.dataset.digest) == ("Digits", checksum[:36])
    artifact = client.download_artifacts(found.info.run_id, "checkpoints/best.ckpt")
    assert torch.load(artifact, weights_only=True)["state_dict"]
    assert read_ids(folder) == ids

    # config.yaml has no ids: it starts a new run.
    assert not any(f"{one[0]}" in (folder / "config.yaml").read_text() for one in ids.values())


@pytest.fixture
def stopped(run: Run, runs: Path) -> Path:
    """The folder of a run that crashed and had no tracker."""
    with pytest.raises(Crash):
        run("fit", *SHORT, *crash_after(4))
    return runs / "short/001"


@pytest.mark.slow
def test_trackers_can_be_added_and_removed_on_resume(
    run: Run, refused: Callable, stopped: Path
) -> None:
    assert read_ids(stopped) == {}
    with pytest.raises(Crash):
        run("fit", *SHORT, *overlay("mlflow"), "--resume", "auto", *crash_after(2))
    ids = read_ids(stopped)
    assert list(ids) == ["MLFlowLogger"]

    # An unknown run id is an error that says how to continue.
    (stopped / "loggers.json").write_text('{"MLFlowLogger": ["0123"]}')
    paragraph = refused("fit", "--resume", stopped, *WITHOUT_CRASH)
    assert "cannot continue its run 0123" in paragraph
    assert "delete" in paragraph
    (stopped / "loggers.json").write_text(json.dumps(ids))
    assert run("fit", "--resume", stopped, *WITHOUT_CRASH, "--trainer.logger", "false") == stopped
    assert read_ids(stopped) == ids


def test_damaged_ids_file_is_reported_before_training(refused: Callable, stopped: Path) -> None:
    for text in ("{", "[]", '{"MLFlowLogger": "abc"}', '{"MLFlowLogger": [1]}', "\xff\xfe"):
        (stopped / "loggers.json").write_bytes(text.encode("latin1"))
        paragraph = refused("fit", "--resume", stopped, *WITHOUT_CRASH)
        assert "loggers.json is damaged" in paragraph
        assert "delete it" in paragraph


def test_artifacts_require_a_tracker_that_stores_files(refused: Callable) -> None:
    asked = ("--tracking.best_as_artifact", "true")
    assert "configs/logger/wandb.yaml" in refused("fit", *SHORT, *asked)
    log_model = (*overlay("mlflow"), "--trainer.logger.log_model", "true")
    assert "--tracking.best_as_artifact true" in refused("fit", *SHORT, *log_model)
    braces = (*overlay("mlflow"), "--trainer.logger.experiment_name", "a{b}c")
    assert "placeholders are run_folder" in refused("fit", *SHORT, *braces)


@pytest.mark.parametrize("key", [None, "0" * 40])
def test_wandb_runs_offline_without_a_network_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd, key: str | None
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    wandb.teardown()
    parsed = parsed_wandb_logger()
    fill_placeholders(parsed, tmp_path / "runs/x/001", {"WandbLogger": ["abc"]})
    assert (parsed.init_args.offline, parsed.init_args.mode) == (True, "offline")
    assert parsed.init_args.id == "abc"
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "offline" in line]
    assert ("cannot be reached" if key else "no API key") in line


def parsed_wandb_logger() -> Any:
    """`trainer.logger` of the overlay, as the command line parses it."""
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLI, "instantiate_classes", lambda self: found.append(self.config))
        patch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
        CLI.from_args(["fit", "--config", str(TINY), *map(str, overlay("wandb"))])
    (logger,) = found[0]["fit"].trainer.logger
    return logger


def test_two_trackers_of_a_class_keep_their_ids_and_explicit_ids_stay() -> None:
    from jsonargparse import Namespace

    loggers = [
        Namespace(class_path="a.Tracker", init_args=Namespace({name: value}))
        for name, value in ((ID_ARGUMENTS[0], None), (ID_ARGUMENTS[1], None), ("id", "mine"))
    ]
    fill_placeholders(loggers, Path("runs/x/001"), {"Tracker": ["one", "two", "three"]})
    assert [next(iter(vars(one.init_args).values())) for one in loggers] == ["one", "two", "mine"]


def fit_alone(number: int) -> None:
    """Train in this process, which is a fork, with one of eight seeds."""
    CLI.from_args([*map(str, ("fit", *SHORT, *overlay("mlflow"), "--seed_everything", number))])


@pytest.mark.slow
def test_eight_runs_at_once_lose_nothing_in_one_database(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fit_alone, args=(number,)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    client, found = mlflow_runs(tmp_path / "runs")
    assert len({run.data.params["seed_everything"] for run in found}) == 8
    for run in found:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted(metric.step for metric in history) == list(range(12))
