"""Before any work: does the net fit the data?"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor


class Preflight(L.Callback):
    """Push two samples through the net, so that a misfit is one sentence and not a stack trace.

    Once a process: a net that was trained here fits, and a strategy may have cut it by now.
    """

    def __init__(self) -> None:
        self._fitted = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._fitted:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        loader = {
            "fit": data.train_dataloader,
            "validate": data.val_dataloader,
            "test": data.test_dataloader,
            "predict": data.predict_dataloader,
        }[stage]
        training = pl_module.training
        pl_module.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            batch = next(iter(loader()))
            two = _rows(batch, 2)
            try:
                inputs, targets = data.on_after_batch_transfer(two, 0)
            except Exception as error:  # of an augmentation, or what mixes pictures
                raise MisconfigurationException(
                    f"{type(data).__name__} can't make inputs of a batch of {_shapes(two)}: "
                    f"{str(error).splitlines()[0]}. Does its augmentation fit?"
                ) from error
            try:
                output = pl_module(inputs)
            except Exception as error:
                raise MisconfigurationException(
                    f"{_names(pl_module, data)}: the net can't take inputs of {_shapes(inputs)}: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        pl_module.train(training)
        logits: Tensor = output[0] if isinstance(output, tuple) else output
        if targets.is_floating_point():  # probabilities, where the data mix pictures
            targets = targets.argmax(dim=-1)
        if logits.shape[:-1] != targets.shape:
            raise MisconfigurationException(
                f"{_names(pl_module, data)}: for targets of {_shapes(targets)} the net returned "
                f"logits of {_shapes(logits)}; expected {(*targets.shape, '…')}, one row a target."
            )
        if int(targets.max()) >= logits.shape[-1]:
            raise MisconfigurationException(
                f"{_names(pl_module, data)}: the net has {logits.shape[-1]} logits, too few for "
                f"the data's target {int(targets.max())}."
            )
        self._fitted = stage == "fit"


def _names(pl_module: L.LightningModule, data: L.LightningDataModule) -> str:
    net = type(getattr(pl_module, "net", pl_module)).__name__
    return f"{net} does not fit {type(data).__name__}"


def _rows(batch: Any, number: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:number]
    if isinstance(batch, dict):
        return {name: _rows(value, number) for name, value in batch.items()}
    return tuple(_rows(value, number) for value in batch)


def _shapes(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shapes(item)}" for name, item in value.items())
    if isinstance(value, tuple):
        return " and ".join(map(_shapes, value))
    return f"shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
