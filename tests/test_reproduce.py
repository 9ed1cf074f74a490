"""A promise is held against what was measured, and a broken one is not passed over."""

from collections.abc import Callable
from pathlib import Path

import drill
import pytest

import reproduce

CONFIG = """
expect: {test/accuracy: ">= 0.5"}
model: {class_path: modules.Classifier, init_args: {net: modules.nets.MLP}}
data: datamodules.Digits
trainer: {max_epochs: 3}
"""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every training of a seed end with these accuracies."""

    def measured(*accuracies: float) -> None:
        def train(config: Path, seed: int, flags: list[str]) -> dict:
            return {
                "metrics": {"test/accuracy": accuracies[seed]},
                "expect": {"test/accuracy": {"promise": ">= 0.5", "seen": accuracies[seed]}},
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
        told = table.read_text() if table.exists() else ""
    return told


def test_the_mean_over_seeds_keeps_a_promise_that_one_seed_breaks(config, measured) -> None:
    measured(0.4, 0.7)
    table = run(config, "--seeds", "2")
    assert "| 0.5500 ± 0.2121 | 2 |" in table
    assert "broken" not in table


def test_a_broken_promise_is_written_down_and_exits_with_1(config, measured) -> None:
    measured(0.4)
    with pytest.raises(SystemExit) as exit:
        run(config)
    assert "BROKEN" in str(exit.value)  # a text as the code: printed to stderr, code 1
    assert "**broken** 0.4000" in config.with_name("results.md").read_text()


def test_a_new_result_takes_the_place_of_the_old_one(config, measured) -> None:
    for accuracy in (0.6, 0.8):
        measured(accuracy)
        table = run(config)
    assert table.count("mine.yaml") == 1
    assert "0.8000" in table


@pytest.mark.parametrize("text", ["data: datamodules.Digits\n", None])
def test_what_promises_nothing_is_refused(config, text, capsys) -> None:
    config.write_text(text) if text else config.unlink()
    with pytest.raises(SystemExit) as exit:
        run(config)
    assert exit.value.code == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_what_stands_below_the_table_stays(config, measured) -> None:
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
def test_a_real_training_is_judged_by_its_results(config, monkeypatch, capsys) -> None:
    table = run(config, "--", "--runs_dir", str(config.parent / "runs"))
    assert "| MLP | 9,610 | test/accuracy | >= 0.5 |" in table
    assert "all promises kept" in capsys.readouterr().out
