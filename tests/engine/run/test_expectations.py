"""Expectations are met, not met or not judged; training metrics are epoch means."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.run.csv_logger import epoch_means
from engine.run.expectations import judge
from tests.support import ROOT


def test_expectation_without_a_value_or_with_a_reason_is_not_judged() -> None:
    expect = {"test/accuracy": ">= 0.9", "val/loss": "< 1"}
    found = judge(expect, {"val/loss": 2.0})
    assert found["test/accuracy"].verdict == "not judged"
    assert found["test/accuracy"].reason == "not measured in this run"
    assert found["val/loss"].verdict == "not met"
    found = judge(expect, {"val/loss": 0.5}, "max_epochs differs")
    assert {one.verdict for one in found.values()} == {"not judged"}
    assert {one.reason for one in found.values()} == {"max_epochs differs"}
    assert judge(expect, {"val/loss": 0.5})["val/loss"].verdict == "met"


@pytest.mark.parametrize("separator", ["/", "_"])
def test_epoch_means_average_the_last_epoch(tmp_path: Path, separator: str) -> None:
    rows = ("0,9.0,", "0,7.0,", "0,,1.0", "1,3.0,", "1,5.0,", "1,,0.5", "1,,0.5")
    path = tmp_path / "metrics.csv"
    header = f"epoch,train{separator}loss,val{separator}loss"
    path.write_text("\n".join([header, *rows]) + "\n")
    assert epoch_means(path) == {f"train{separator}loss": 4.0}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "program",
    [
        *("train.py", "generate.py", "export.py", "reproduce.py", "tune.py"),
        pytest.param("-m scripts.score_text", marks=pytest.mark.slow),
        pytest.param("-m scripts.tokenize_text", marks=pytest.mark.slow),
    ],
)
def test_console_that_is_not_utf8_never_raises(program: str, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, *program.split(), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
