"""What all trials of a study share: a command line of train.py, checked before any trial starts."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cli.command_line import CLI
from cli.diagnosis import did_you_mean
from engine.errors import UserError
from engine.run.config_differences import flatten
from engine.run.folder import experiment_name
from tuning.report import as_yaml, brief
from tuning.search import Search, flags

QUIET = ("--trainer.enable_progress_bar", "false")
# What may be told anew to a study that goes on: places and words, nothing that a trial computes.
PLACES = ("config", "runs_dir", "experiment", "expect")


class Plan(CLI):
    """A command line of train.py, read and not done."""

    arguments: Sequence[str] = ()  # that command line, without its subcommand

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""

    def resolved(self, **how: Any) -> dict[str, Any]:
        """The config as plain values; `how` is for the parser's dump."""
        text = self._parser("fit").dump(self.config["fit"], **how)
        return dict(yaml.safe_load(text))

    @property
    def shared(self) -> dict[str, Any]:
        """What the trials of one study must have in common."""
        config = {k: v for k, v in self.resolved(skip_none=False).items() if k not in PLACES}
        config["data"].get("init_args", {}).pop("data_dir", None)
        return config


def read_plan(arguments: Sequence[str], search_file: Path) -> Plan:
    """Read what stands on the command line for train.py.

    Args:
        arguments: Without the options that are tune.py's own.
        search_file: Names the experiment, unless --experiment does.

    Returns:
        The plan; its `arguments` are those of every trial.
    """
    names = {argument.partition("=")[0] for argument in arguments}
    if not names & {"--config", "-c"}:
        raise MisconfigurationException(
            "name the config to search: --config configs/digits/mlp.yaml --search …"
        )
    for name in ("--resume", "--ckpt_path"):
        if name in names:
            raise MisconfigurationException(
                f"{name} is for a single run: a study goes on by the same command as before."
            )
    arguments = [*arguments]
    if "--experiment" not in names:
        arguments += ["--experiment", experiment_name([search_file])]
    plan = Plan.from_args(["fit", *arguments])
    trainer = plan.config["fit"].trainer
    several = not (
        trainer.devices in ("auto", 1, "1")
        or (isinstance(trainer.devices, list) and len(trainer.devices) == 1)
    )
    if several or trainer.num_nodes > 1:
        raise MisconfigurationException(
            f"a trial trains on one device: leave out trainer.devices ({trainer.devices}) and "
            "trainer.num_nodes. Several devices train several trials: --workers 2."
        )
    if trainer.fast_dev_run:
        raise MisconfigurationException(
            "trainer.fast_dev_run flatten no results to compare; take --trainer.max_epochs 1."
        )
    plan.arguments = arguments
    return plan


def check_parameters(search: Search, arguments: Sequence[str], search_file: Path) -> None:
    """Try each bound and each choice on the command line, which knows all keys and types."""
    for probe in search.probes():
        try:
            plan = Plan.from_args(["fit", *arguments, *flags(probe)])
        except UserError as error:
            raise UserError(f"{search_file}: parameters: {error}") from error
        reached = _keys(plan)
        for key, value in probe.items():
            if isinstance(value, int | float) and reached.get(_plain(key)) != value:
                raise MisconfigurationException(
                    f"{search_file}: parameters: {key} {value} does not reach the config, which "
                    f"has {reached.get(_plain(key))!r} there: name the key that chooses its class "
                    "before it."
                )


def check_run(search: Search, arguments: Sequence[str], search_file: Path) -> None:
    """Run one batch: data, net and metric are there, or are one sentence now and not a trial."""
    with redirect_stdout(io.StringIO()):
        dry = CLI.from_args(["fit", *arguments, *QUIET, "--trainer.fast_dev_run", "true"])
    metrics = sorted(dry.trainer.callback_metrics)
    if search.metric not in metrics:
        raise MisconfigurationException(
            f"{search_file}: there is no metric {search.metric!r}."
            f"{did_you_mean(search.metric, metrics)} Known after validation: {', '.join(metrics)}."
        )


def trial_arguments(arguments: Sequence[str], worker: int) -> list[str]:
    """The command line of a worker's trials: of several GPUs it gets its own."""
    devices = torch.cuda.device_count()
    mine = ["--trainer.devices", f"[{worker % devices}]"] if devices > 1 else []
    return [*arguments, *QUIET, *mine]


def best_config(arguments: Sequence[str], parameters: Mapping[str, Any], experiment: str) -> str:
    """The config of a trial as YAML, by itself: it tells what differs from the defaults."""
    plan = Plan.from_args(["fit", *arguments, *flags(parameters)])
    config = brief(plan.resolved(skip_default=True, skip_none=False))
    for key in ("config", "runs_dir"):
        config.pop(key, None)
    return as_yaml({**config, "experiment": experiment})


def _plain(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "init_args")


def _keys(plan: Plan) -> dict[str, Any]:
    return {_plain(key): value for key, value in flatten(plan.resolved(skip_none=False))}
