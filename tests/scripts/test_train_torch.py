"""The training loop in plain PyTorch against the Trainer."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import train_torch
from tests.support import REAL, ROOT


def column(run_folder: Path, name: str) -> list[float]:
    with (run_folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.slow
def test_plain_loop_and_trainer_log_equal_losses(
    run: Callable[..., Path], data_of: Callable[[str], Path]
) -> None:
    folder = data_of("MNIST")
    epochs = 2 if "MNIST" in REAL else 13  # at least 50 steps, so that a training loss is logged
    history = train_torch.main(["--epochs", str(epochs), "--data_dir", str(folder)])
    run_folder = run(
        *("fit", "--config", ROOT / "configs/mnist/mlp.yaml", "--data.data_dir", folder),
        *(
            "--trainer.max_epochs",
            epochs,
            "--trainer.callbacks",
            "null",
            "--test_after_fit",
            "false",
        ),
    )
    assert history["train/loss"]
    for name in ("train/loss", "val/loss"):
        assert history[name] == column(run_folder, name)
    assert history["val/accuracy"] == pytest.approx(column(run_folder, "val/accuracy"), abs=1e-7)


def test_epochs_must_be_positive(capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        train_torch.main(["--epochs", "0"])
    assert exit.value.code == 2
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err
