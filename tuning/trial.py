"""A trial: one run of train.py with the parameters that the study suggests."""

import io
import json
import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import optuna
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cli.command_line import CLI
from engine.checkpoint.reading import read_checkpoint
from engine.checkpoint.resuming import checkpoint_of
from tuning.search import Search, flags


class Pruning(L.Callback):
    """Report every validation to the study, and stop training when its pruner asks for it.

    A pruner's steps (`n_warmup_steps`) are validations 0, 1, 2, …, so that trials with different
    batch sizes are compared after the same number of epochs. A pruned run ends like one stopped
    early, with a complete run folder.

    Args:
        trial: The trial of this run.
        metric: The metric to report.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.pruned = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # A resumed run may repeat a validation; the step identifies it.
        steps = self.trial.user_attrs.get("validated_at", [])
        if trainer.global_step not in steps:
            steps = [*steps, trainer.global_step]
            self.trial.set_user_attr("validated_at", steps)
        value = float(trainer.callback_metrics[self.metric])
        self.trial.report(value, step=steps.index(trainer.global_step))
        if self.trial.should_prune():
            self.pruned = trainer.should_stop = True


class TrialRun(CLI):
    """train.py's fit for a trial, without a test: the test set must not influence the choice.

    Args:
        trial: The trial; its parameters are on the command line already.
        metric: The metric that the study optimizes.
        *args: See LightningCLI.
        **kwargs: See LightningCLI.
    """

    tests_after_fit = False

    def __init__(self, *args: Any, trial: optuna.Trial, metric: str, **kwargs: Any) -> None:
        self.trial = trial
        self.pruning = Pruning(trial, metric)
        self.extra_callbacks = [self.pruning]
        self.origin = {"study": trial.study.study_name, "trial": trial.number}
        super().__init__(*args, **kwargs)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        # From here on another worker can resume the trial from its checkpoint.
        self.trial.set_user_attr("run", str(self.run_folder))
        return trainer

    def after_fit(self) -> None:
        super().after_fit()
        if self.pruning.pruned:
            raise optuna.TrialPruned


def resumable(run: str | None) -> bool:
    """Return whether a run folder has a checkpoint to resume from."""
    return run is not None and checkpoint_of(Path(run), read_checkpoint) is not None


def train(trial: optuna.Trial, search: Search, arguments: Sequence[str]) -> float:
    """Train with the parameters of a trial, or resume it where another process left it.

    Args:
        trial: With all parameters suggested.
        search: The search.
        arguments: train.py's command line without subcommand and parameters.

    Returns:
        The metric of the best checkpoint.

    Raises:
        optuna.TrialPruned: If the pruner ended it.
        Exception: Any error of the training.
    """
    before = trial.user_attrs.get("run")
    if before is not None and resumable(before):
        command = ["fit", "--resume", before]
    else:
        command = ["fit", *arguments, *flags(trial.params)]
    try:
        with redirect_stdout(io.StringIO()):  # the study has a line for each trial
            run = TrialRun.from_args(command, trial=trial, metric=search.metric)
    finally:
        wandb: Any = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:  # the next trial is another run
            wandb.run.finish(exit_code=1)
    results = json.loads((run.run_folder / "results.json").read_text())  # type: ignore[operator]
    value = float(results["metrics"][search.metric])
    if not math.isfinite(value):
        raise MisconfigurationException(f"{search.metric} is {value}.")
    return value
