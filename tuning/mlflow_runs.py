"""The trials of a study at MLflow: nested runs of one parent run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger

STUDY = "study"  # tag of the parent run: the folder of the study's runs
PARENT = "mlflow.parentRunId"


def nest_run(loggers: Iterable[Logger], runs: Path) -> None:
    """Make the MLflow run of a trial a child of the run of its study, which is created once.

    Args:
        loggers: Loggers of the trial.
        runs: Folder of the study's runs.
    """
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            client, run = logger.experiment, logger.run_id
            with FileLock(runs / ".mlflow.lock"):  # of the workers of this study
                parent = _parent(client, client.get_run(run).info.experiment_id, runs)
            client.set_tag(run, PARENT, parent)


def log_trial(loggers: Iterable[Logger], metric: str, value: float, trial: int) -> None:
    """Log the result of a trial to the run of its study, at the number of the trial."""
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            client = logger.experiment
            parent = client.get_run(logger.run_id).data.tags[PARENT]
            client.log_metric(parent, metric, value, step=trial)


def _parent(client: Any, experiment: str, runs: Path) -> str:
    study = str(runs.resolve())
    for found in client.search_runs([experiment], f"tags.{STUDY} != ''"):
        if found.data.tags[STUDY] == study:
            return str(found.info.run_id)
    run = client.create_run(experiment, run_name=runs.name, tags={STUDY: study})
    client.set_terminated(run.info.run_id)  # trials are added to it at any time
    return str(run.info.run_id)
