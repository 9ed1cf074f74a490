"""Checks of a parsed config before anything is built or written."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import StrategyRegistry

from cli.diagnosis import did_you_mean
from engine.checkpoint.reading import check_checkpoint, read_checkpoint
from engine.distributed.strategies import check_devices
from engine.errors import UserError
from engine.run.expectations import is_met

MINIMUM = {  # of a Trainer argument, and its meaning
    "accumulate_grad_batches": (1, "no accumulation"),
    "log_every_n_steps": (1, "every step"),
    "check_val_every_n_epoch": (1, "every epoch"),
    "gradient_clip_val": (0, "no clipping"),
}


def check_config(config: Namespace, subcommand: str) -> None:
    """Check the values of a subcommand's config that its types do not restrict.

    Raises:
        UserError: Naming the key and a valid value.
    """
    for metric, expectation in config.expect.items():
        try:
            is_met(expectation, 0.0)
        except ValueError as error:
            raise UserError(f"expect: {metric}: {error}.") from error
    for key in ("augmentation", "batch_mixing"):
        if config.get(f"data.init_args.{key}.init_args.transforms") == []:
            raise UserError(
                f"data.{key}.transforms is empty: add a transform, or pass --data.{key} null."
            )
    _check_checkpoint_path(config.ckpt_path, subcommand)
    _check_trainer(config.trainer)
    check_devices(config.trainer, config.ckpt_path)


def _check_checkpoint_path(path: Any, subcommand: str) -> None:
    if path is not None and subcommand == "fit":
        raise UserError(
            "fit does not accept --ckpt_path: use --resume RUN_FOLDER to continue a run, or "
            f"--init_from {path} to start a new one from its weights."
        )
    if path is None and subcommand != "fit":
        raise UserError(
            f"{subcommand} needs a checkpoint, as in --ckpt_path runs/…/checkpoints/best.ckpt."
        )
    if path in ("best", "last"):
        raise UserError(
            f"ckpt_path: a new process cannot resolve {path!r}; pass the file, as in --ckpt_path "
            f"runs/…/checkpoints/{path}.ckpt."
        )


def _check_trainer(trainer: Any) -> None:
    if not isinstance(trainer, Namespace):
        raise UserError(
            f"trainer: expected keys with values, as in max_epochs: 3, not {trainer!r}."
        )
    for name, (minimum, meaning) in MINIMUM.items():
        value = trainer[name]
        if value is not None and value < minimum:
            raise UserError(f"trainer.{name} must be at least {minimum} ({meaning}), got {value}.")
    if trainer.val_check_interval == 0:
        raise UserError(
            "trainer.val_check_interval must be above 0; to skip validation pass "
            "--trainer.limit_val_batches 0."
        )
    if isinstance(trainer.strategy, str):
        _check_strategy(trainer.strategy, str(trainer.accelerator))


def _check_strategy(name: str, accelerator: str) -> None:
    known = ["auto", *StrategyRegistry.available_strategies()]
    if name not in known and "." not in name:
        raise UserError(
            f"trainer.strategy: unknown strategy {name!r}.{did_you_mean(name, known)} One device "
            "needs none; several usually take ddp."
        )
    if name.startswith("fsdp") and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError(
            f"trainer.strategy: {name} needs GPUs. Use --config configs/trainer/fsdp.yaml, which "
            "shards on CPUs too, or --trainer.strategy ddp."
        )


def check_data_given(config: Namespace, task: type | None) -> None:
    """Check that there is a data module, or that the task has data loaders itself.

    Raises:
        UserError: If there is neither.
    """
    own = task is not None and any(
        getattr(task, hook) is not getattr(L.LightningModule, hook)
        for hook in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
    )
    if config.get("data") is None and not own:
        raise UserError("data is missing: choose it, as in --data datamodules.Digits.")


def load_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """Read a checkpoint, or check a sharded one, which may be larger than the memory."""
    if Path(path).is_dir():
        check_checkpoint(path)
        return None
    return read_checkpoint(path)


def check_not_complete(checkpoint: dict[str, Any] | None, trainer: Namespace, folder: Path) -> None:
    """Check that a run to resume is not beyond the epochs that it is asked for.

    Raises:
        UserError: If it is.
    """
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    if checkpoint is not None and 0 <= epochs < checkpoint["epoch"]:
        raise UserError(
            f"cannot resume {folder}: it has trained for {checkpoint['epoch']} epochs and "
            f"--trainer.max_epochs is {epochs}. Increase --trainer.max_epochs."
        )


def check_schedule_lasts(
    checkpoint: Mapping[str, Any] | None,
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    folder: Path,
) -> None:
    """Check that a run to resume for longer does not depend on its former length.

    The checkpoint restores a schedule that spans the run (WarmupCosine, OneCycle) with the former
    number of steps, or one whose learning rate has reached zero.

    Args:
        checkpoint: The checkpoint; None for a sharded one.
        saved: The config that the run was started with.
        current: The config of the command line.
        folder: The run folder, for the message.

    Raises:
        UserError: If the run would train at the schedule's last learning rate.
    """
    scheduler = current["model"].get("init_args", {}).get("lr_scheduler") or {}
    spans_run = scheduler.get("init_args", {}).get("total_steps", 0) is None
    for state in (checkpoint or {}).get("lr_schedulers", []):
        total, rates = state.get("total_steps"), state.get("_last_lr", [])
        ends = (spans_run and total is not None) or (bool(rates) and not any(rates))
        if ends and _is_longer(saved["trainer"], current["trainer"], total):
            name = scheduler.get("class_path", "its schedule").rpartition(".")[2]
            when = f"ends at step {total}" if total else "has reached learning rate 0"
            raise UserError(
                f"cannot resume {folder} for longer: {name} {when}, so the added steps would train "
                "at its last learning rate. Start a new run from the weights with --init_from "
                f"{folder}/checkpoints/last.ckpt and the number of epochs to add."
            )


def _is_longer(saved: Mapping[str, Any], current: Mapping[str, Any], total: int | None) -> bool:
    """Return whether a run of `total` steps is to train for more epochs or steps than before."""

    def limit(trainer: Mapping[str, Any], name: str) -> float:
        return math.inf if trainer[name] in (None, -1) else trainer[name]

    names = ("max_epochs", "max_steps")
    longer = any(limit(current, name) > limit(saved, name) for name in names)
    return longer and (total is None or limit(current, "max_steps") > total)
