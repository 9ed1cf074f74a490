"""Experiment trackers (W&B, MLflow, ...): one tracker run per run folder, also after a resume.

`loggers.json` in the run folder holds the id of the run at each tracker, and `--resume` continues
it there. Steps that ran after the last checkpoint of a killed run are logged a second time, with
the same step and, because resuming is exact, the same values. (W&B's `resume_from` could rewind a
run,
but not on every server and not offline; MLflow cannot.) In W&B, metrics are plotted over
`trainer/global_step`.
"""

import json
import logging
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import lightning as L
from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from engine.checkpoint.writing import find_checkpoints
from engine.errors import UserError
from engine.lightning_internals import drop_anonymous_setting, flatten_dict

IDS_FILE = "loggers.json"
# Argument of Lightning's loggers for the id of a run: MLflow and Neptune, W&B, Comet.
ID_ARGUMENTS = ("run_id", "id", "experiment_key")
RunIds = dict[str, list[str]]  # class of the logger → ids of its runs, in the order of the config


class TrackerArtifacts(L.Callback):
    """Send the trackers more than metrics: the best checkpoint, and the load of the machine.

    Args:
        best_as_artifact: Upload `best.ckpt` to W&B and MLflow at the end of fit.
        system_metrics: Log the load of CPU, memory, disk, network and GPUs to MLflow every 10
            seconds. W&B does so by itself.
    """

    def __init__(self, best_as_artifact: bool = False, system_metrics: bool = False) -> None:
        self.best_as_artifact = best_as_artifact
        self.system_metrics = system_metrics
        self._monitors: list[Any] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self.best_as_artifact and trainer.loggers:
            _check_stores_artifacts(trainer.loggers)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.system_metrics and trainer.is_global_zero:
            self._monitors = [
                _start_monitor(logger)
                for logger in trainer.loggers
                if isinstance(logger, MLFlowLogger)
            ]

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._finish_monitors()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._finish_monitors()

    def _finish_monitors(self) -> None:
        while self._monitors:
            self._monitors.pop().finish()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        checkpoints = find_checkpoints(trainer)
        if not self.best_as_artifact or not trainer.is_global_zero or checkpoints is None:
            return
        best = Path(checkpoints.best_model_path)
        if not best.name:
            return
        metadata = {"monitor": checkpoints.monitor, "score": checkpoints.best_model_score}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                artifact = wandb.Artifact(f"model-{logger.version}", "model", metadata=metadata)
                (artifact.add_dir if best.is_dir() else artifact.add_file)(str(best))
                logger.experiment.log_artifact(artifact, aliases=["best"])
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(best), "checkpoints")


def _start_monitor(logger: MLFlowLogger) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    monitor = SystemMetricsMonitor(
        logger.run_id, resume_logging=True, tracking_uri=logger.experiment.tracking_uri
    )
    monitor.start()
    return monitor


def _check_stores_artifacts(loggers: Iterable[Logger]) -> None:
    if not any(isinstance(logger, WandbLogger | MLFlowLogger) for logger in loggers):
        raise UserError(
            "--tracking.best_as_artifact requires a tracker that stores files: add "
            "--config configs/logger/wandb.yaml or --config configs/logger/mlflow.yaml."
        )


def start_trackers(loggers: Iterable[Logger], folder: Path) -> None:
    """Start or continue the run at each tracker and write the ids to `loggers.json`.

    Raises:
        UserError: If a tracker fails or has no run of this id.
    """
    found: RunIds = {}
    for logger in loggers:
        if not _id_argument(signature(type(logger).__init__).parameters):
            continue
        _open(logger, folder)
        found.setdefault(type(logger).__name__, []).append(str(logger.version))
        if isinstance(logger, MLFlowLogger):  # after a resume
            logger.experiment.update_run(logger.run_id, status="RUNNING")
    if found:
        write_ids(folder, read_ids(folder) | found)  # keep those of trackers not used now


def _open(logger: Logger, folder: Path) -> None:
    if isinstance(logger, WandbLogger):
        drop_anonymous_setting(logger)
    try:
        with mlflow_lock(folder) if isinstance(logger, MLFlowLogger) else nullcontext():
            _ = logger.experiment  # type: ignore[attr-defined]  # starts or finds its run
    except Exception as error:  # any error of the tracker or its server
        raise _cannot_open(type(logger).__name__, folder, error) from error


def _cannot_open(name: str, folder: Path, error: Exception) -> UserError:
    cause = str(error).strip().partition("\n")[0].rstrip(".")
    ids = ", ".join(read_ids(folder).get(name, []))
    if not ids:
        return UserError(f"{name} cannot start a run: {cause}.")
    return UserError(
        f"{name} cannot continue its run {ids}: {cause}. To start a new run there, delete "
        f"{folder / IDS_FILE}."
    )


def read_ids(folder: Path) -> RunIds:
    """Return the ids in `loggers.json`; empty if there is no such file.

    Raises:
        UserError: If the file is damaged.
    """
    path = folder / IDS_FILE
    if not path.is_file():
        return {}
    try:
        ids = json.loads(path.read_text())
    except ValueError:  # not JSON, or not text
        ids = None
    valid = isinstance(ids, dict) and all(
        isinstance(several, list) and several and all(isinstance(one, str) for one in several)
        for several in ids.values()
    )
    if not valid:
        raise UserError(
            f"{path} is damaged: it must hold the ids of the trackers' runs, as in "
            '{"WandbLogger": ["k3j2h1"]}. Correct it, or delete it to start new runs there.'
        )
    return ids


def write_ids(folder: Path, ids: RunIds) -> None:
    """Write `loggers.json` atomically."""
    partial = folder / f"{IDS_FILE}.part"
    partial.write_text(json.dumps(ids, indent=2) + "\n")
    partial.replace(folder / IDS_FILE)


def fill_placeholders(logger: Any, folder: Path, ids: Mapping[str, list[str]]) -> None:
    """Complete a logger's config: placeholders, the ids of a resumed run, offline mode of W&B.

    `{run_folder}`, `{runs_dir}`, `{experiment}` and `{version}` in its arguments are replaced. An
    id in the config has precedence. W&B runs offline where its server cannot be reached.

    Args:
        logger: `trainer.logger` of a parsed config: one class_path with init_args, or several.
        folder: The run folder.
        ids: Those of the resumed run, see `read_ids`.
    """
    ids = {name: list(several) for name, several in ids.items()}
    for one in logger if isinstance(logger, list) else [logger]:
        if hasattr(one, "init_args"):
            _fill_in(one, folder, ids)


def _fill_in(logger: Any, folder: Path, ids: RunIds) -> None:
    arguments, name = logger.init_args, logger.class_path.rpartition(".")[2]
    placeholders = {
        "run_folder": str(folder),
        "runs_dir": str(folder.parent.parent),
        "experiment": folder.parent.name,
        "version": folder.name,
    }
    for key, value in vars(arguments).items():
        if isinstance(value, str):
            try:
                arguments[key] = value.format_map(placeholders)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise UserError(
                    f"trainer.logger: {key} is {value!r}; the placeholders are "
                    f"{', '.join(placeholders)}. Write other braces twice, {{{{ and }}}}."
                ) from error
    if vars(arguments).get("log_model"):
        raise UserError(
            f"log_model of {name} requires Lightning's ModelCheckpoint: remove it and set "
            "--tracking.best_as_artifact true."
        )
    argument = _id_argument(vars(arguments))
    if argument and ids.get(name):
        saved = ids[name].pop(0)
        arguments[argument] = arguments[argument] or saved
    if name == "TensorBoardLogger":
        arguments.default_hp_metric = False  # a constant -1 that means nothing
    if name == "WandbLogger" and not arguments.offline and (reason := _why_wandb_is_offline()):
        arguments.offline = True
        arguments.mode = "offline"  # the environment variable is read at import
        arguments.settings = {"silent": True}  # replaced by the line below
        upload = f"wandb sync {folder}/wandb/offline-run-*"
        sys.stderr.write(f"W&B runs offline: {reason}. Upload the run with: {upload}\n")
    if name == "MLFlowLogger" and str(arguments.tracking_uri).startswith("sqlite:"):
        try:
            _create_tables(arguments.tracking_uri, folder)
        except Exception as error:  # any error of the database
            raise _cannot_open(name, folder, error) from error


def _id_argument(names: Iterable[str]) -> str | None:
    return next((name for name in ID_ARGUMENTS if name in names), None)


def _why_wandb_is_offline() -> str | None:
    import wandb  # takes half a second

    if wandb.setup().settings.mode in ("offline", "disabled"):
        return f"WANDB_MODE is {wandb.setup().settings.mode}"
    try:
        # Verification would raise an error without a network.
        has_key = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        return str(error).rstrip(".")
    if not has_key:
        return "no API key (run `wandb login`)"
    url = urlsplit(wandb.setup().settings.base_url)
    proxy = urlsplit(getproxies().get(url.scheme, "")) if url.scheme else url
    host, port = proxy.hostname or url.hostname or "", proxy.port or url.port or 443
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return f"{host} cannot be reached ({error})"
    return None


def mlflow_lock(folder: Path) -> FileLock:
    """Lock against runs that start at once and would create the same row of MLflow's database.

    Tables, experiments and data sets are shared by runs; MLflow looks for one and then creates it.
    """
    return FileLock(folder.parent.parent / ".mlflow.lock")


def _create_tables(uri: str, folder: Path) -> None:
    from mlflow import MlflowClient

    with mlflow_lock(folder):
        MlflowClient(uri).search_experiments(max_results=1)


def log_config(logger: Logger, record: Mapping[str, Any]) -> None:
    """Log the config, git commit and versions of a run.

    MLflow parameters are immutable: a resumed run logs changed values as tags of the same names.
    The commit is also the tag `mlflow.source.git.commit`.
    """
    if not isinstance(logger, MLFlowLogger):
        logger.log_hyperparams(dict(record))
        return
    client, run = logger.experiment, str(logger.run_id)
    client.set_tag(run, "mlflow.source.git.commit", record["git_commit"])
    values = {key: str(value)[:250] for key, value in flatten_dict(dict(record)).items()}
    before = client.get_run(run).data.params
    logger.log_hyperparams({key: value for key, value in values.items() if key not in before})
    for key, value in values.items():
        if before.get(key, value) != value:
            client.set_tag(run, key, value)


def finish_trackers(loggers: Iterable[Logger], *, failed: bool = False) -> None:
    """Finish W&B's run; otherwise the next run in this process would log to it."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(exit_code=int(failed))
