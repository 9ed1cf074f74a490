"""Trackers (W&B, MLflow, …): told where the run is, kept to one run each, given the best weights.

A run folder holds `loggers.json`: the id under which each tracker knows the run. A run that goes on
(`--resume`) goes on there too. What it logged after its last checkpoint before it was killed is
logged a second time, with the same step and, since the resume is exact, the same values: no second
history. (W&B could be rewound by `resume_from`; not every server allows that, and offline only the
upload would tell. MLflow forgets nothing.) All metrics stand over `trainer/global_step` in W&B.
"""

import json
import socket
import sys
from collections.abc import Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.checkpoint.writing import find_checkpoints
from engine.lightning_internals import flatten_dict

IDS = "loggers.json"
# What Lightning's loggers call the id of a run, as argument: MLflow and Neptune, W&B, Comet.
ID_ARGUMENTS = ("run_id", "id", "experiment_key")
Ids = dict[str, list[str]]  # class of logger → ids of its runs, in the order of the config


class TrackerArtifacts(L.Callback):
    """Gives the trackers the best checkpoint, if asked.

    Args:
        best_as_artifact: At the end of fit, upload `best.ckpt` to W&B and MLflow as an artifact.
    """

    def __init__(self, best_as_artifact: bool = False) -> None:
        self.best_as_artifact = best_as_artifact

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self.best_as_artifact and trainer.loggers:
            _check_takes_artifacts(trainer.loggers)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        checkpoints = find_checkpoints(trainer)
        if not self.best_as_artifact or not trainer.is_global_zero or checkpoints is None:
            return
        best = Path(checkpoints.best_model_path)
        if not best.name:
            return
        known = {"monitor": checkpoints.monitor, "score": checkpoints.best_model_score}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                artifact = wandb.Artifact(f"model-{logger.version}", "model", metadata=known)
                (artifact.add_dir if best.is_dir() else artifact.add_file)(str(best))
                logger.experiment.log_artifact(artifact, aliases=["best"])
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(best), "checkpoints")


def _check_takes_artifacts(loggers: Iterable[Logger]) -> None:
    if not any(isinstance(logger, WandbLogger | MLFlowLogger) for logger in loggers):
        raise MisconfigurationException(
            "--tracking.best_as_artifact needs a tracker that keeps files: add "
            "--config configs/logger/wandb.yaml or --config configs/logger/mlflow.yaml."
        )


def start_trackers(loggers: Iterable[Logger], folder: Path) -> None:
    """Begin the run at each tracker, or go on with the one it knows, and write down the ids.

    Raises:
        MisconfigurationException: If a tracker is out of order, or does not know the run.
    """
    found: Ids = {}
    for logger in loggers:
        if not _id_argument(signature(type(logger).__init__).parameters):
            continue
        _open(logger, folder)
        found.setdefault(type(logger).__name__, []).append(str(logger.version))
        if isinstance(logger, MLFlowLogger):  # what was stopped goes on
            logger.experiment.update_run(logger.run_id, status="RUNNING")
    if found:
        write_ids(folder, read_ids(folder) | found)  # of trackers left out today, too


def _open(logger: Logger, folder: Path) -> None:
    try:
        _ = logger.experiment  # type: ignore[attr-defined]  # begins or finds its run
    except Exception as error:  # of a library and a server unknown to us
        name = type(logger).__name__
        told = str(error).strip().partition("\n")[0].rstrip(".")
        known = ", ".join(read_ids(folder).get(name, []))
        if not known:
            raise MisconfigurationException(f"{name} can't begin a run: {told}.") from error
        raise MisconfigurationException(
            f"{name} can't go on with its run {known}: {told}. To go on with another one, delete "
            f"{folder / IDS}."
        ) from error


def read_ids(folder: Path) -> Ids:
    """The ids of a run folder; none where no tracker was told.

    Raises:
        MisconfigurationException: If the file is damaged.
    """
    path = folder / IDS
    if not path.is_file():
        return {}
    try:
        ids = json.loads(path.read_text())
    except ValueError:  # no JSON, or no text at all
        ids = None
    whole = isinstance(ids, dict) and all(
        isinstance(several, list) and several and all(isinstance(one, str) for one in several)
        for several in ids.values()
    )
    if not whole:
        raise MisconfigurationException(
            f"{path} is damaged: it should name the ids of the trackers' runs, as in "
            '{"WandbLogger": ["k3j2h1"]}. Put it right, or delete it: the trackers then begin new '
            "runs."
        )
    return ids


def write_ids(folder: Path, ids: Ids) -> None:
    """Write `loggers.json`, whole or not at all."""
    partial = folder / f"{IDS}.part"
    partial.write_text(json.dumps(ids, indent=2) + "\n")
    partial.replace(folder / IDS)


def fill_placeholders(logger: Any, folder: Path, ids: Mapping[str, list[str]]) -> None:
    """Put run folder and ids into a logger's config; keep W&B offline where it can't be reached.

    `{run_folder}`, `{runs_dir}`, `{experiment}` and `{version}` in its arguments are replaced. An
    id that the config names stays.

    Args:
        logger: `trainer.logger` of a parsed config: one class_path with init_args, or several.
        folder: The run folder.
        ids: Of the run that goes on; see `read_ids`.
    """
    ids = {name: list(several) for name, several in ids.items()}
    for one in logger if isinstance(logger, list) else [logger]:
        if hasattr(one, "init_args"):
            _fill_in(one, folder, ids)


def _fill_in(logger: Any, folder: Path, ids: Ids) -> None:
    arguments, name = logger.init_args, logger.class_path.rpartition(".")[2]
    places = {
        "run_folder": str(folder),
        "runs_dir": str(folder.parent.parent),
        "experiment": folder.parent.name,
        "version": folder.name,
    }
    for key, value in vars(arguments).items():
        if isinstance(value, str):
            try:
                arguments[key] = value.format_map(places)
            except (KeyError, ValueError, IndexError, AttributeError) as error:
                raise MisconfigurationException(
                    f"trainer.logger: {key} is {value!r}, and braces may stand around "
                    f"{', '.join(places)} only; write others twice, as {{{{ and }}}}."
                ) from error
    if vars(arguments).get("log_model"):
        raise MisconfigurationException(
            f"log_model of {name} listens to Lightning's own checkpoints, not to these: leave it "
            "out, and say --tracking.best_as_artifact true."
        )
    argument = _id_argument(vars(arguments))
    known = ids.get(name)
    if argument and known:
        before = known.pop(0)
        arguments[argument] = arguments[argument] or before
    if name == "WandbLogger" and not arguments.offline:
        reason = _wandb_out_of_reach()
        if reason:
            arguments.offline = True
            arguments.mode = "offline"  # wandb has read its environment by now
            arguments.settings = {"silent": True}  # the next line says it all
            upload = f"wandb sync {folder}/wandb/offline-run-*"
            sys.stderr.write(f"W&B stays offline: {reason}. `{upload}` uploads the run.\n")


def _id_argument(names: Iterable[str]) -> str | None:
    return next((name for name in ID_ARGUMENTS if name in names), None)


def _wandb_out_of_reach() -> str | None:
    import wandb  # half a second: only for those who log there

    if wandb.setup().settings.mode in ("offline", "disabled"):
        return f"WANDB_MODE is {wandb.setup().settings.mode}"
    try:
        # Without a network the key could not be verified, and W&B would raise instead of telling.
        has_key = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        return str(error).rstrip(".")
    if not has_key:
        return "there is no API key (`wandb login`)"
    url = urlsplit(wandb.setup().settings.base_url)
    through = urlsplit(getproxies().get(url.scheme, "")) if url.scheme else url
    host, port = through.hostname or url.hostname or "", through.port or url.port or 443
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return f"{host} can't be reached ({error})"
    return None


def log_config(logger: Logger, record: Mapping[str, Any]) -> None:
    """Give a tracker all that a run was told, with the commit.

    MLflow never changes a parameter: of a run that goes on with other values, these stand as tags
    of the same names. The commit is its `mlflow.source.git.commit`.
    """
    if not isinstance(logger, MLFlowLogger):
        logger.log_hyperparams(dict(record))
        return
    client, run = logger.experiment, str(logger.run_id)
    client.set_tag(run, "mlflow.source.git.commit", record["git_commit"])
    told = {key: str(value)[:250] for key, value in flatten_dict(dict(record)).items()}
    before = client.get_run(run).data.params
    logger.log_hyperparams({key: value for key, value in told.items() if key not in before})
    for key, value in told.items():
        if before.get(key, value) != value:
            client.set_tag(run, key, value)


def finish_trackers(loggers: Iterable[Logger], *, failed: bool = False) -> None:
    """End what lasts as long as the process: else the next run in it would log into this one."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish(exit_code=int(failed))
