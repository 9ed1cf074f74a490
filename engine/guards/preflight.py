"""Check before training that network, data and monitored metrics fit together."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from engine.errors import UserError
from engine.eval_mode import eval_mode


class Preflight(L.Callback):
    """Run two samples through a task that declares `targets_are_classes`.

    The declaration means: batches are `(inputs, targets)`, and `forward(inputs)` returns logits
    (…, num_classes), alone or first in a tuple, for targets (…) of class indices. Other tasks are
    not checked. The check runs once a process: the network may be sharded later.
    """

    def __init__(self) -> None:
        self._done = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._done or not getattr(pl_module, "targets_are_classes", False):
            return
        if any(weight.is_meta for weight in pl_module.parameters()):  # without values yet
            return
        data = trainer.datamodule or pl_module  # type: ignore[attr-defined]
        loader = {
            "fit": data.train_dataloader,
            "validate": data.val_dataloader,
            "test": data.test_dataloader,
            "predict": data.predict_dataloader,
        }[stage]()
        with eval_mode(pl_module), torch.random.fork_rng(devices=[]), torch.no_grad():
            _check(pl_module, data, _first_two(next(iter(loader))))
        self._done = stage == "fit"

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that validation logs the metrics that callbacks and schedules monitor."""
        known = sorted(trainer.callback_metrics)
        monitors = {
            type(callback).__name__: callback.monitor
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if getattr(callback, "monitor", None)
        }
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.monitor:
                monitors[type(config.scheduler).__name__] = config.monitor
        stages = {name.partition("/")[0] for name in known}
        for owner, metric in monitors.items():
            if metric not in known and metric.partition("/")[0] in stages:
                raise UserError(
                    f"{owner} monitors {metric!r}, which is not logged. Logged by validation: "
                    f"{', '.join(known)}."
                )


def _check(task: L.LightningModule, data: Any, batch: Any) -> None:
    pair = f"{type(getattr(task, 'net', task)).__name__} does not fit {type(data).__name__}"
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UserError(
            f"{type(task).__name__} expects batches (inputs, targets), but those of "
            f"{type(data).__name__} are {_shapes(batch)}. Return pairs, or write a task for them."
        )
    try:
        inputs, targets = data.on_after_batch_transfer(batch, 0)
    except Exception as error:  # of an augmentation or batch mixing
        raise UserError(
            f"{type(data).__name__} cannot prepare a batch of {_shapes(batch)}: "
            f"{_first_line(error)}. Check its augmentation."
        ) from error
    try:
        output = task(inputs)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{pair}: the network failed for inputs of {_shapes(inputs)}: {_first_line(error)}"
        ) from error
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    _check_targets(task, targets, logits, pair)


def _check_targets(task: L.LightningModule, targets: Tensor, logits: Tensor, pair: str) -> None:
    if targets.is_floating_point():  # class probabilities, from mixed or smoothed labels
        if targets.shape != logits.shape:
            raise UserError(
                f"{pair}: {type(task).__name__} predicts classes, and the targets are "
                f"{_shapes(targets)}. Use class indices (int64), or a task for regression."
            )
        targets = targets.argmax(dim=-1)
    if logits.shape[:-1] != targets.shape:
        raise UserError(
            f"{pair}: for targets of {_shapes(targets)} the network returned logits of "
            f"{_shapes(logits)}; expected shape {_expected(targets)}."
        )
    outputs, classes = logits.shape[-1], task.hparams.get("num_classes")
    if classes is not None and outputs != classes:
        raise UserError(
            f"{pair}: the network has {outputs} outputs for {classes} classes: set the size of its "
            "last layer, --model.net.num_classes for our networks."
        )
    if targets.numel() and int(targets.max()) >= outputs:
        raise UserError(
            f"{pair}: the network has {outputs} outputs, too few for target {int(targets.max())}."
        )


def _expected(targets: Tensor) -> str:
    return f"({', '.join(map(str, targets.shape))}, num_classes)"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _first_two(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch[:2]
    if isinstance(batch, dict):
        return {name: _first_two(value) for name, value in batch.items()}
    return tuple(map(_first_two, batch)) if isinstance(batch, tuple | list) else batch


def _shapes(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shapes(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return " and ".join(map(_shapes, value))
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
