"""The reliability drill, and two processes that are stopped and resume."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.drill import drill
from tests.support.resume import IMAGES, assert_same_run


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert drill(tmp_path, kills=3, seed=1, epochs=40, verbose=False)["kills"] == 3


@pytest.mark.slow
def test_two_processes_resume_bit_exact(tmp_path: Path) -> None:
    def fit(experiment: str, *more: str) -> int:
        two = ("--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp")
        often = ("--checkpoint.every_n_steps", 4, "--test_after_fit", "false")
        arguments = ("fit", *IMAGES, *two, *often, "--experiment", experiment, *more)
        command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300).returncode

    crash = (
        "--trainer.callbacks+=tests.support.resume.CrashAfter",
        "--trainer.callbacks.batches=15",
    )
    assert fit("uninterrupted") == 0
    assert fit("stopped", *crash) == 1
    assert fit("stopped", "--resume", "auto") == 0
    assert_same_run(tmp_path / "runs/uninterrupted/001", tmp_path / "runs/stopped/001")
