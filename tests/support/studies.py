"""Search files and commands of tune.py for tests."""

import json
from pathlib import Path

import optuna

from tests.support import ROOT, TINY

SEARCH = """
maximize: val/accuracy
trials: 2
parameters:
  model.net.channels: {choice: [[4], [2, 4]]}
  model.optimizer.lr: {float: [0.001, 0.1], log: true}
"""
# A rate of 0 learns nothing and is pruned; at 1e30 the loss is NaN.
THREE_OUTCOMES = """
maximize: val/accuracy
trials: 3
sampler: {class_path: optuna.samplers.BruteForceSampler, init_args: {seed: 0}}
pruner: {class_path: optuna.pruners.ThresholdPruner, init_args: {lower: 0.15, n_warmup_steps: 1}}
parameters:
  model.optimizer.lr: {choice: [0.0, 0.01, 1.0e+30]}
"""
BASE = ("--config", str(TINY), "--config", str(ROOT / "configs/optimizer/adamw.yaml"))


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def tune_arguments(search: Path, *more: str | Path) -> list[str]:
    """Arguments of tune.py that put the runs beside the search file."""
    runs = ("--runs_dir", search.parent / "runs")
    return [*BASE, *map(str, ("--search", search, *runs, *more))]


def results(run: str | Path) -> dict:
    return json.loads((Path(run) / "results.json").read_text())


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}").trials
