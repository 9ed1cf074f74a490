"""reproduce.py compares results with expectations and reports those that are not met."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import reproduce
from engine.run.expectations import is_met
from tests.support import drill

CONFIG = """
expect: {test/accuracy: ">= 0.5"}
model: {class_path: modules.Classifier, init_args: {net: modules.nets.MLP}}
data: datamodules.Digits
trainer: {max_epochs: 3}
"""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace training: the runs of seeds 0, 1, … end with these accuracies."""

    def measured(*accuracies: float) -> None:
        def train(config: Path, seed: int, flags: list[str]) -> dict:
            return {
                "metrics": {"test/accuracy": accuracies[seed]},
                "net": "MLP",
                "parameters": 1234,
                "seconds": 2.0,
                "machine": "a machine",
                "date": "2026-11-22",
                "git_commit": "0123456789abcdef",
            }

        monkeypatch.setattr(reproduce, "train", train)

    return measured


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return path


def run(config: Path, *more: str) -> str:
    table = config.with_name("results.md")
    try:
        reproduce.main([str(config), "--results", str(table), *more])
    finally:
        text = table.read_text() if table.exists() else ""
    return text


def test_mean_over_seeds_is_compared(config, measured) -> None:
    measured(0.4, 0.7)
    table = run(config, "--seeds", "2")
    assert "| 0.5500 ± 0.2121 | 2 |" in table
    assert "not met" not in table


def test_unmet_expectation_is_in_the_table_and_exits_with_1(config, measured) -> None:
    measured(0.4)
    with pytest.raises(SystemExit) as exit:
        run(config)
    assert "not met" in str(exit.value)  # sys.exit(text): printed to stderr, code 1
    assert "**not met** 0.4000" in config.with_name("results.md").read_text()


def test_value_rounded_by_float32_meets_its_expectation() -> None:
    value = float(np.float32(9970 / 10_000))
    assert value < 0.997
    assert is_met(">= 0.997", value)
    assert not is_met(">= 0.99701", value)
    assert not is_met(">= 0.997", float("nan"))


def test_new_result_replaces_the_old_row(config, measured) -> None:
    for accuracy in (0.6, 0.8):
        measured(accuracy)
        table = run(config)
    assert table.count("mine.yaml") == 1
    assert "0.8000" in table


@pytest.fixture
def run_folder(config: Path) -> Callable[..., str]:
    """Make a finished run with this seed and accuracy."""

    def run_folder(seed: int, accuracy: float, epochs: int = 3) -> str:
        folder = config.with_name(f"run-{seed}-{epochs}")
        folder.mkdir()
        settings = {
            "model": {"class_path": "modules.Classifier", "init_args": {"net": "modules.nets.MLP"}},
            "data": {"class_path": "datamodules.Digits", "init_args": {"batch_size": 32}},
            "trainer": {"max_epochs": epochs, "devices": 1},
            "seed_everything": seed,
        }
        results = {
            "metrics": {"test/accuracy": accuracy},
            "net": "MLP",
            "parameters": 1234,
            "seconds": 2.0,
            "machine": "a machine",
            "date": "2026-11-22",
            "git_commit": "0123456789abcdef",
            "config": settings,
        }
        (folder / "results.json").write_text(json.dumps(results))
        return str(folder)

    return run_folder


def test_finished_runs_are_compared_without_training(config, run_folder) -> None:
    table = run(config, "--runs", run_folder(5, 0.4), run_folder(7, 0.7))
    assert "| 0.5500 ± 0.2121 | 2 |" in table


def test_runs_of_another_config_or_the_same_seed_are_refused(config, run_folder, capsys) -> None:
    good, longer = run_folder(1, 0.9), run_folder(2, 0.9, epochs=4)
    empty = config.with_name("empty")
    for wrong, complaint in (
        ((good, good), "same seed, 1"),
        ((good, longer), "differ in trainer.max_epochs"),
        ((good, str(empty)), "empty has no results.json"),
    ):
        with pytest.raises(SystemExit) as exit:
            run(config, "--runs", *wrong)
        assert exit.value.code == 2
        assert complaint in capsys.readouterr().err
    assert not config.with_name("results.md").exists()


@pytest.mark.parametrize("text", ["data: datamodules.Digits\n", None])
def test_config_without_expectations_is_refused(config, text, capsys) -> None:
    config.write_text(text) if text else config.unlink()
    with pytest.raises(SystemExit) as exit:
        run(config)
    assert exit.value.code == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_help_has_the_defaults(capsys) -> None:
    with pytest.raises(SystemExit):
        reproduce.main(["--help"])
    text = capsys.readouterr().out
    assert "(default: 1)" in text
    assert "(default: docs/results.md)" in text


def test_sections_below_the_table_stay(config, measured) -> None:
    measured(1.0)
    run(config)
    path = config.with_name("results.md")
    table = path.read_text()
    path.write_text(table + "\n## Other\n\nwords\n")
    drill.write(path, f"{drill.TITLE}\n\nfirst\n")
    drill.write(path, f"{drill.TITLE}\n\nsecond\n")
    path.write_text(path.read_text() + "\n## Last\n")
    drill.write(path, f"{drill.TITLE}\n\nthird\n\n")
    run(config)
    below = "\n## Other\n\nwords\n\n## Reliability drill\n\nthird\n\n## Last\n"
    assert path.read_text() == table + below


@pytest.mark.slow
def test_real_training_is_compared_by_its_results(config, monkeypatch, capsys) -> None:
    table = run(config, "--", "--runs_dir", str(config.parent / "runs"))
    assert "| MLP | 9,610 | test/accuracy | >= 0.5 |" in table
    assert "all expectations met" in capsys.readouterr().out


def test_config_without_a_model_is_run_by_rag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def start(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        (tmp_path / "results.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0, f"run folder: {tmp_path}\n")

    monkeypatch.setattr(subprocess, "run", start)
    (tmp_path / "mine.yaml").write_text("expect: {mrr: '>= 0.5'}\ndata: {path: a.json}\n")
    assert reproduce.train(tmp_path / "mine.yaml", 0, ["--data.questions", "9"]) == {}
    (command,) = commands
    assert command[1:] == [
        *("rag.py", "evaluate", "--config", str(tmp_path / "mine.yaml")),
        *("--data.questions", "9"),
    ]
