"""Run a trial: train.py's `fit` with the parameters that the study suggests."""

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

from cli.command_line import CLI
from engine.checkpoint.reading import read_checkpoint
from engine.checkpoint.resuming import checkpoint_of
from engine.errors import UserError
from tuning.mlflow_runs import log_trial, nest_run
from tuning.search import Search, to_flags


class PruningCallback(L.Callback):
    """Report every validation to the study and stop training if its pruner asks for it.

    Steps are validations (0, 1, 2, …), so trials with different batch sizes are compared after the
    same number of epochs, and a pruner's `n_warmup_steps` are validations. A pruned run ends as by
    early stopping, with all its files.

    Args:
        trial: Trial that is being trained.
        metric: Name of the metric to report.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.pruned = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # A resumed run may repeat a validation; equal global steps identify it.
        steps = self.trial.user_attrs.get("validated_at", [])
        if trainer.global_step not in steps:
            steps = [*steps, trainer.global_step]
            self.trial.set_user_attr("validated_at", steps)
        value = float(trainer.callback_metrics[self.metric])
        self.trial.report(value, step=steps.index(trainer.global_step))
        if self.trial.should_prune():
            self.pruned = trainer.should_stop = True


class TrialCLI(CLI):
    """train.py's command line for one trial, without the test after fit.

    Args:
        trial: Trial whose parameters are among the arguments.
        metric: Metric that the study optimizes.
        *args: See LightningCLI.
        **kwargs: See LightningCLI.
    """

    tests_after_fit = False

    def __init__(self, *args: Any, trial: optuna.Trial, metric: str, **kwargs: Any) -> None:
        self.trial = trial
        self.pruning = PruningCallback(trial, metric)
        self.extra_callbacks = [self.pruning]
        self.origin = {"study": trial.study.study_name, "trial": trial.number}
        super().__init__(*args, **kwargs)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        trainer = super().instantiate_trainer(**kwargs)
        # Stored before training, so that the trial can be resumed if this process dies.
        self.trial.set_user_attr("run", str(self.run_folder))
        if self.run_folder:
            nest_run(trainer.loggers, self.run_folder.parent)
        return trainer

    def after_fit(self) -> None:
        super().after_fit()
        if self.pruning.pruned:
            raise optuna.TrialPruned


def is_resumable(run: str | None) -> bool:
    """Return whether a run folder has a readable checkpoint."""
    return run is not None and checkpoint_of(Path(run), read_checkpoint) is not None


def train(trial: optuna.Trial, search: Search, arguments: Sequence[str]) -> float:
    """Train with the trial's parameters, or resume its run if its former process died.

    Args:
        trial: Trial with all parameters suggested.
        search: Search that the trial belongs to.
        arguments: Command line of train.py without subcommand and the trial's parameters.

    Returns:
        The metric at the best checkpoint.

    Raises:
        optuna.TrialPruned: If the pruner stopped the training.
        Exception: Any error of the training.
    """
    run = trial.user_attrs.get("run")
    resume = ["fit", "--resume", str(run)]
    command = resume if is_resumable(run) else ["fit", *arguments, *to_flags(trial.params)]
    try:
        with redirect_stdout(io.StringIO()):  # tune.py prints one line per trial
            cli = TrialCLI.from_args(command, trial=trial, metric=search.metric)
    finally:
        wandb: Any = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:  # the next trial is another W&B run
            wandb.run.finish(exit_code=1)
    results = json.loads((cli.run_folder / "results.json").read_text())  # type: ignore[operator]
    value = float(results["metrics"][search.metric])
    if not math.isfinite(value):
        raise UserError(f"{search.metric} is {value}.")
    log_trial(cli.trainer.loggers, search.metric, value, trial.number)
    return value
