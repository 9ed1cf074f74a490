"""The train.py command that all trials of a study share, checked before the first trial."""

import importlib
import inspect
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml

from cli.command_line import CLI
from cli.diagnosis import did_you_mean
from engine.errors import UserError
from engine.run.config_differences import flatten
from engine.run.folder import experiment_name
from tuning.search import Search, to_flags

QUIET = ("--trainer.enable_progress_bar", "false")
# Keys that may change when a study is continued, since no result depends on them.
CHANGEABLE = ("config", "runs_dir", "experiment", "expect")
KEY_ORDER = ("experiment", "seed_everything", "expect", "auto_precision", "model", "data")


class ParsedCommand(CLI):
    """A `fit` command that is parsed and checked without building or running anything."""

    arguments: Sequence[str] = ()  # without the subcommand

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""

    def resolved(self, **options: Any) -> dict[str, Any]:
        """Return the config as plain values; the options are those of jsonargparse's `dump`."""
        text = self._parser("fit").dump(self.config["fit"], **options)
        return dict(yaml.safe_load(text))

    def shared_config(self) -> dict[str, Any]:
        """Return what must be equal for all trials of a study."""
        config = self.resolved(skip_none=False)
        config = {key: value for key, value in config.items() if key not in CHANGEABLE}
        config["data"].get("init_args", {}).pop("data_dir", None)
        return config


def parse_command(arguments: Sequence[str], search_file: Path) -> ParsedCommand:
    """Parse and check the arguments of train.py.

    Args:
        arguments: Arguments without those of tune.py.
        search_file: Gives the experiment its name unless the arguments contain --experiment.

    Raises:
        UserError: If the arguments are not suited to a trial.
    """
    names = {argument.partition("=")[0] for argument in arguments}
    if not names & {"--config", "-c"}:
        raise UserError("--config is missing, as in --config configs/digits/mlp.yaml --search …")
    for name in ("--resume", "--ckpt_path"):
        if name in names:
            raise UserError(f"{name} is for single runs; run the same command to continue a study.")
    arguments = [*arguments]
    if "--experiment" not in names:
        arguments += ["--experiment", experiment_name([search_file])]
    command = ParsedCommand.from_args(["fit", *arguments])
    trainer = command.config["fit"].trainer
    devices = trainer.devices
    one_device = devices in ("auto", 1, "1") or (isinstance(devices, list) and len(devices) == 1)
    if not one_device or trainer.num_nodes > 1:
        raise UserError(
            f"each trial trains on one device: remove trainer.devices ({devices}) and "
            "trainer.num_nodes. To use several devices, train trials in parallel: --workers 2."
        )
    if trainer.fast_dev_run:
        raise UserError("trainer.fast_dev_run gives no results; use --trainer.max_epochs 1.")
    command.arguments = arguments
    return command


def check_parameters(search: Search, arguments: Sequence[str], search_file: Path) -> None:
    """Check that the config accepts each bound and each choice.

    Raises:
        UserError: If a key is unknown, a value has the wrong type or is replaced by a later key.
    """
    for probe in search.probes():
        try:
            command = ParsedCommand.from_args(["fit", *arguments, *to_flags(probe)])
        except UserError as error:
            raise UserError(f"{search_file}: parameters: {error}") from error
        resolved = flatten(command.resolved(skip_none=False))
        values = {_without_init_args(key): value for key, value in resolved}
        for key, expected in probe.items():
            value = values.get(_without_init_args(key))
            if isinstance(expected, int | float) and value != expected:
                raise UserError(
                    f"{search_file}: parameters: {key} {expected} has no effect, the config has "
                    f"{value!r}: put the key that chooses its class before it."
                )


def check_metric(search: Search, arguments: Sequence[str], search_file: Path) -> None:
    """Run one batch to check that the data exist, the model trains and the metric is logged.

    Raises:
        UserError: If validation does not log the metric.
    """
    with redirect_stdout(io.StringIO()):
        cli = CLI.from_args(["fit", *arguments, *QUIET, "--trainer.fast_dev_run", "true"])
    metrics = sorted(cli.trainer.callback_metrics)
    if search.metric not in metrics:
        raise UserError(
            f"{search_file}: there is no metric {search.metric!r}."
            f"{did_you_mean(search.metric, metrics)} Logged in validation: {', '.join(metrics)}."
        )


def trial_arguments(arguments: Sequence[str], worker: int) -> list[str]:
    """Return the arguments of a worker's trials; with several GPUs each worker uses its own."""
    num_gpus = torch.cuda.device_count()
    device = ["--trainer.devices", f"[{worker % num_gpus}]"] if num_gpus > 1 else []
    return [*arguments, *QUIET, *device]


def best_config(arguments: Sequence[str], parameters: Mapping[str, Any], experiment: str) -> str:
    """Return the config of a trial as YAML, with all values that differ from the defaults."""
    command = ParsedCommand.from_args(["fit", *arguments, *to_flags(parameters)])
    config = _drop_defaults(command.resolved(skip_default=True, skip_none=False))
    for key in ("config", "runs_dir"):
        config.pop(key, None)
    config["experiment"] = experiment
    trainer = {"trainer": config.pop("trainer")} if "trainer" in config else {}
    first = {key: config[key] for key in KEY_ORDER if key in config}
    return yaml.safe_dump(
        {**first, **config, **trainer}, sort_keys=False, default_flow_style=None, width=100
    )


def _drop_defaults(config: Any) -> Any:
    """Remove arguments equal to the defaults of their class from a resolved config."""
    if isinstance(config, list):
        return [_drop_defaults(item) for item in config]
    if not isinstance(config, dict):
        return config
    if not isinstance(path := config.get("class_path"), str):
        return {key: _drop_defaults(value) for key, value in config.items()}
    module, _, name = path.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    defaults = {key: parameter.default for key, parameter in signature.parameters.items()}
    arguments = {
        key: _drop_defaults(value)
        for key, value in config.get("init_args", {}).items()
        if key not in defaults or not _equal(value, defaults[key])
    }
    return {"class_path": path, "init_args": arguments} if arguments else path


def _equal(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return list(value) == list(default)
    return bool(value == default) and type(value) is type(default)


def _without_init_args(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "init_args")
