"""The command line: config files in, a run folder out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Optional, Union, get_args

import pytest
import torch
import yaml

import train
from cli.command_line import prefer_int
from datamodules import Digits
from tests.support import ROOT, TINY

SMALL = ("--config", TINY)
Run = Callable[..., Path]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def config(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_run_folder_has_the_documented_files(run: Run, runs: Path) -> None:
    folder = run("fit", *SMALL)
    assert folder == runs / "digits-tiny" / "001"
    for name in ("config.yaml", "results.json", "metrics.csv"):
        assert (folder / name).stat().st_size > 0
    for name in ("best.ckpt", "last.ckpt"):
        file = folder / "checkpoints" / name
        assert file.is_file()
        assert not file.is_symlink()  # so that copying the folder copies the run
        assert "state_dict" in torch.load(file, weights_only=True)


def test_results_have_all_that_a_comparison_of_runs_needs(run: Run) -> None:
    found = results(run("fit", *SMALL))
    keys = "metrics net parameters seconds samples_per_second config versions git_commit date"
    assert set(keys.split()) <= set(found)
    metrics = {"loss", "accuracy", "f1", "precision", "recall", "auroc", "ece"}
    expected = {f"{stage}/{metric}" for stage in ("val", "test") for metric in metrics}
    assert expected <= set(found["metrics"])
    assert (found["net"], found["epochs"], found["steps"]) == ("CNN", 1, 1257 // 128)
    assert 0 <= found["metrics"]["test/accuracy"] <= 1
    assert found["config"]["model"]["init_args"]["net"]["init_args"]["channels"] == [4]


def test_samples_per_second_exclude_validation(run: Run) -> None:
    found = results(run("fit", *SMALL, "--trainer.max_epochs", 3, "--data.batch_size", 50))
    assert found["steps"] == 3 * (1257 // 50)
    average = found["steps"] * 50 / found["seconds"]  # including validation and checkpoints
    assert average * 0.99 <= found["samples_per_second"] < average * 20


def test_seconds_cover_the_full_fit_even_if_the_best_epoch_is_the_first(run: Run) -> None:
    worst_first = ("--checkpoint.mode", "max", "--trainer.max_epochs", 3)
    folder = run("fit", *SMALL, *worst_first, "--test_after_fit", "true")
    seconds = {}
    for name in ("best", "last"):
        saved = torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)
        seconds[name] = saved["callbacks"]["RunRecord"]["seconds"]
    # 0.5: last.ckpt may be written after the time of the fit was recorded
    assert seconds["best"] < seconds["last"] <= results(folder)["seconds"] + 0.5


def test_completed_run_can_be_evaluated_with_its_last_checkpoint(run: Run) -> None:
    worst = run("fit", *SMALL, "--checkpoint.mode", "max", "--trainer.max_epochs", 3)
    before = results(worst)["metrics"]
    again = run("fit", "--resume", worst, "--checkpoint.monitor", "null")
    assert again == worst
    after = results(worst)["metrics"]
    assert after["val/loss"] < before["val/loss"]  # mode max selected the worst checkpoint
    assert after["test/loss"] < before["test/loss"]


def test_metrics_csv_has_a_validation_row_per_epoch(run: Run) -> None:
    folder = run("fit", *SMALL, "--trainer.max_epochs", 2, "--test_after_fit", "false")
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert [int(row["epoch"]) for row in rows] == [0, 1]
    assert float(rows[1]["val/loss"]) == pytest.approx(results(folder)["metrics"]["val/loss"])


def test_run_shorter_than_the_logging_interval_logs_its_last_step(run: Run) -> None:
    short = ("--trainer.max_epochs", 1, "--trainer.log_every_n_steps", 50)
    folder = run("fit", "--config", TINY, *short, "--test_after_fit", "false")
    with (folder / "metrics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["step"] for row in rows if row["train/loss"]] == [rows[-1]["step"]]


def test_recorded_config_reproduces_the_result(run: Run) -> None:
    first = run("fit", *SMALL, "--model.optimizer", "SGD", "--model.optimizer.lr", "0.05")
    second = run("fit", "--config", first / "config.yaml", "--experiment", "again")
    assert results(second)["metrics"] == results(first)["metrics"]
    ours, again = config(first), config(second)
    assert again.pop("experiment") == "again"
    ours.pop("experiment")
    assert again == ours


def test_recorded_config_names_commit_and_versions(run: Run) -> None:
    head = (run("fit", *SMALL) / "config.yaml").read_text().splitlines()[:4]
    assert head[0].startswith("# git commit: ")
    assert head[1].startswith("# python: 3.")


def test_last_printed_line_names_the_run_folder(run: Run, capsys) -> None:
    folder = run("fit", *SMALL)
    assert capsys.readouterr().out.splitlines()[-1] == f"run folder: {folder}"


def test_versions_are_numbered_and_never_overwritten(run: Run, runs: Path) -> None:
    first = run("fit", *SMALL)
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    (runs / "digits-tiny" / "007").mkdir()
    assert run("fit", *SMALL).name == "008"
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before


def test_results_depend_on_the_seed_only(run: Run) -> None:
    seeds = [results(run("fit", *SMALL, "--seed_everything", s))["metrics"] for s in (1, 1, 2)]
    assert seeds[0] == seeds[1]
    assert seeds[0] != seeds[2]


def test_seed_everything_seeds_the_order_of_the_data(run: Run) -> None:
    orders = []
    for seed in (1, 2):
        cli_seed = ("--seed_everything", seed, "--trainer.limit_train_batches", 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("modules.Classifier.on_train_batch_start", _append_labels(orders))
            run("fit", *SMALL, *cli_seed)
    assert orders[0] != orders[1]


def _append_labels(orders: list) -> Callable:
    def on_train_batch_start(self: object, batch: tuple, batch_idx: int) -> None:
        orders.append(batch[1].tolist())

    return on_train_batch_start


def test_later_configs_and_flags_override_earlier_ones(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("data: {init_args: {batch_size: 100}}\ntrainer: {gradient_clip_val: 0.5}\n")
    two.write_text("data: {init_args: {batch_size: 60}}\n")
    both = ("--config", one, "--config", two)
    stacked = config(run("fit", *SMALL, *both))
    assert stacked["data"]["init_args"]["batch_size"] == 60
    assert stacked["trainer"]["gradient_clip_val"] == 0.5
    flagged = run("fit", *SMALL, *both, "--data.batch_size", 64)
    assert config(flagged)["data"]["init_args"]["batch_size"] == 64
    assert flagged.parent.name == "digits-tiny"  # overlays do not change the name


def test_flags_are_never_abbreviated(run: Run, runs: Path) -> None:
    with pytest.raises(SystemExit) as exit:
        run("fit", *SMALL, "--trainer.max_ep", "3")
    assert exit.value.code == 2
    assert not runs.exists()


def test_expectations_are_judged_in_results_and_summary(run: Run, capsys) -> None:
    expect = '{"test/accuracy": ">= 0.0", "val/loss": "< 0.0", "test/nothing": "> 0"}'
    found = results(run("fit", *SMALL, "--expect", expect))["expect"]
    assert found["test/accuracy"]["expected"] == ">= 0.0"
    assert found["test/accuracy"]["verdict"] == "met"
    assert found["test/nothing"]["value"] is None
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (accuracy,) = [line for line in lines if line.startswith("accuracy")]
    (loss,) = [line for line in lines if line.startswith("loss")]
    (nothing,) = [line for line in lines if line.startswith("nothing")]
    assert "expected test >= 0.0: met" in accuracy
    assert "expected val < 0.0: not met" in loss
    assert "expected test > 0: not judged" in nothing


def test_test_after_fit_can_be_disabled(run: Run) -> None:
    metrics = results(run("fit", *SMALL, "--test_after_fit", "false"))["metrics"]
    assert metrics
    assert not [name for name in metrics if name.startswith("test/")]


def test_fast_dev_run_writes_nothing(run: Run, runs: Path, tmp_path: Path) -> None:
    assert run("fit", *SMALL, "--trainer.fast_dev_run", "true") is None
    assert list(tmp_path.iterdir()) == []


def test_test_and_validate_reproduce_the_metrics_of_fit(run: Run) -> None:
    fitted = run("fit", *SMALL)
    metrics = results(fitted)["metrics"]
    weights = ("--ckpt_path", fitted / "checkpoints/best.ckpt")
    for command, stage in (("test", "test"), ("validate", "val")):
        folder = run(command, "--config", fitted / "config.yaml", *weights)
        assert folder != fitted
        # 1e-6: float32 sums over 128 samples
        expected = {name: v for name, v in metrics.items() if name.startswith(stage)}
        assert results(folder)["metrics"] == pytest.approx(expected, abs=1e-6)


def test_predict_writes_a_prediction_for_each_test_sample(run: Run) -> None:
    fitted = run("fit", *SMALL)
    weights = ("--ckpt_path", fitted / "checkpoints/best.ckpt")
    folder = run("predict", *SMALL, *weights)
    assert folder != fitted
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = Digits()
    data.setup("predict")
    targets = [data.class_names[label] for label in data.splits["test"][1].tolist()]
    correct = [row["prediction"] == target for row, target in zip(rows, targets, strict=True)]
    accuracy = results(fitted)["metrics"]["test/accuracy"]
    assert sum(correct) / len(correct) == pytest.approx(accuracy)
    assert all(0.1 <= float(row["confidence"]) <= 1 for row in rows)


def test_fit_resumes_from_a_run_folder(run: Run) -> None:
    first = run("fit", *SMALL)
    steps = results(first)["steps"]
    second = run("fit", "--resume", first, "--trainer.max_epochs", 2)
    assert second == first
    assert results(second)["steps"] == 2 * steps


@pytest.fixture
def worsened(run: Run) -> Path:
    """Return a run whose second epoch is worse, at a thousandfold learning rate."""
    name = "torch.optim.lr_scheduler.StepLR"
    schedule = ("--model.lr_scheduler", name, "--model.lr_scheduler.step_size", 1)
    worse = (*schedule, "--model.lr_scheduler.gamma", 1e3)
    return run("fit", *SMALL, "--trainer.max_epochs", 2, *worse)


def test_best_checkpoint_is_tested_not_the_last(worsened: Path) -> None:
    with (worsened / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert losses[1] > losses[0]
    assert results(worsened)["metrics"]["val/loss"] == pytest.approx(losses[0])


def test_last_checkpoint_is_the_last_state_even_if_worse(worsened: Path) -> None:
    best, last = (
        torch.load(worsened / f"checkpoints/{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    )
    assert (best, last) == (9, 18)


def test_help_exits_with_code_zero(capsys) -> None:
    for arguments in (["--help"], ["fit", "--help"]):
        with pytest.raises(SystemExit) as exit:
            train.main(arguments)
        assert exit.value.code == 0
    assert "--test_after_fit" in capsys.readouterr().out


def test_experiment_is_named_after_its_config(run: Run, runs: Path) -> None:
    elsewhere = runs.parent / "mine.yaml"
    elsewhere.write_text(TINY.read_text())
    short = ("--trainer.limit_train_batches", 1, "--test_after_fit", "false")
    assert run("fit", "--config", elsewhere, *short).parent.name == "mine"
    assert run("fit", *SMALL, *short, "--experiment", "other").parent.name == "other"


def test_nothing_is_written_into_the_repository(run: Run) -> None:
    before = {p for p in ROOT.iterdir() if p.name != "__pycache__"}
    run("fit", *SMALL)
    assert {p for p in ROOT.iterdir() if p.name != "__pycache__"} == before


def test_int_is_tried_before_float_in_cached_unions() -> None:
    def trains(batches: Optional[Union[float, int]], name: int | str | None) -> None: ...  # noqa: UP007, UP045

    prefer_int(trains)
    assert get_args(trains.__annotations__["batches"]) == (int, float, type(None))
    assert get_args(trains.__annotations__["name"]) == (int, str, type(None))


def test_limit_train_batches_of_one_stays_an_int(run: Run) -> None:
    folder = run("fit", *SMALL, "--trainer.limit_train_batches", 1, "--test_after_fit", "false")
    limit = config(folder)["trainer"]["limit_train_batches"]
    assert (limit, type(limit)) == (1, int)


def test_run_that_ends_before_its_first_validation_says_so(run: Callable[..., Path]) -> None:
    with pytest.warns(UserWarning, match="before its first validation"):
        run(
            *("fit", "--config", ROOT / "configs/source/gpt.yaml", "--trainer.callbacks", "null"),
            *("--config", ROOT / "configs/size/gpt-nano.yaml", "--trainer.max_steps", 1),
        )
