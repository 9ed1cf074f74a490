"""Stages that are killed by SIGKILL and run again give what an undisturbed run gives."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT, TINY

pytest.importorskip("mlflow")

from mlflow import MlflowClient

from integrations.mlflow_registry import main as register
from pipelines import train

FIT = (
    *("--config", str(TINY), "--config", str(ROOT / "configs/logger/mlflow.yaml")),
    *("--trainer.max_epochs", "6"),
)


def kill_when(condition: Callable[[], bool], run: Callable[[], object]) -> bool:
    """Run in a process of its own and kill it; return whether it was killed before its end."""
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    end = time.monotonic() + 60
    while process.is_alive() and not condition() and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.join()
    return process.exitcode == -9


@pytest.mark.slow
def test_killed_training_and_registration_give_the_same_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # MLflow keeps the database of a relative address open, which other tests have in other folders.
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    fit = [*FIT, "--runs_dir", str(tmp_path / "runs")]
    train.main([*fit, "--experiment", "whole", "--output", "whole"])
    expected = Path("whole/checkpoints/best.ckpt").read_bytes()

    fit += ["--experiment", "killed", "--output", "model"]
    folder = Path("runs/killed/001/checkpoints")
    assert kill_when(lambda: any(folder.glob("*.ckpt")), lambda: train.main(fit))
    assert not Path("model").exists()
    train.main(fit)
    checkpoint = Path("model/checkpoints/best.ckpt")
    assert checkpoint.read_bytes() == expected
    assert not Path("runs/killed/002").exists()  # the run was continued

    words = ["--name", "digits", "--checkpoint", str(checkpoint), "--output", "version.json"]
    kills = 0
    for seconds in (0.3, 1.0, 2.0, 3.0):
        end = time.monotonic() + seconds
        kills += kill_when(lambda end=end: time.monotonic() > end, lambda: register(words))
    assert kills
    assert register(words) == "1"
    versions = MlflowClient(uri).search_model_versions("name = 'digits'")
    assert [version.version for version in versions] == [1]
