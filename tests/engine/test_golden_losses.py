"""The first losses of short runs are those on record.

The recorded values are exact on the machine that wrote them (Intel with AMX, one thread, torch
2.15.0). Elsewhere the order of sums differs, so the default tolerance is 0.2 % of each loss. Set
GOLDEN_EXACT=1 to demand equal bits while refactoring; run this file as a program to record anew.
"""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT

GOLDEN = ROOT / "tests/fixtures/golden_losses.json"
RECORDED = json.loads(GOLDEN.read_text())
TOLERANCE = 0.0 if os.environ.get("GOLDEN_EXACT") == "1" else 2e-3
STEPS = 12


def arguments_of(name: str) -> list[str]:
    """Return the command line of a recorded run, without its run folder."""
    arguments = [str(ROOT / a) if a.startswith("configs/") else a for a in RECORDED[name]["args"]]
    if "configs/source/gpt.yaml" in RECORDED[name]["args"]:
        arguments += ["--trainer.val_check_interval", str(STEPS)]
    return [
        *("fit", *arguments, "--trainer.callbacks", "null", "--test_after_fit", "false"),
        *("--trainer.log_every_n_steps", "1", "--auto_precision", "false", "--expect", "{}"),
        *("--experiment", name, "--trainer.max_steps", str(STEPS), "--trainer.max_epochs", "-1"),
        *("--trainer.limit_val_batches", "2"),
    ]


def losses_of(run_folder: Path) -> list[float]:
    """Return the logged training losses of a run."""
    with (run_folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.mark.parametrize("name", RECORDED)
def test_first_losses_are_those_on_record(name: str, run: Callable[..., Path]) -> None:
    losses = losses_of(run(*arguments_of(name)))
    assert losses == pytest.approx(RECORDED[name]["train/loss"], rel=TOLERANCE, abs=0)


if __name__ == "__main__":
    from cli.main import main

    for name, golden in RECORDED.items():
        folder = main([*arguments_of(name), "--runs_dir", "runs/golden"])
        assert folder is not None
        golden["train/loss"] = losses_of(folder)
    GOLDEN.write_text(json.dumps(RECORDED, indent=1) + "\n")
