"""Stop at the first loss that is no number, before it reaches the weights or a checkpoint."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from engine.checkpoint.writing import find_checkpoints


class FiniteLoss(L.Callback):
    """Raise when the training loss is NaN or infinite, and name the step.

    On a CPU the loss is looked at before each backward pass. Elsewhere that would make the host
    wait for the device, so the device remembers the first bad step; it is asked every
    `trainer.log_every_n_steps` and before a checkpoint is written, so none ever holds NaN weights.
    """

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None  # step, on the device; infinity while all is well

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        step = trainer.global_step
        if loss.device.type == "cpu":
            if not math.isfinite(loss.item()):
                self._stop(step, trainer)
            return
        if self._first_bad is None:
            self._first_bad = torch.full((), torch.inf, device=loss.device)
        bad = torch.where(torch.isfinite(loss.detach()), torch.inf, float(step))
        self._first_bad = torch.minimum(self._first_bad, bad)
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._ask(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._ask(trainer)

    def _ask(self, trainer: L.Trainer) -> None:
        if self._first_bad is not None and self._first_bad.isfinite():
            self._stop(int(self._first_bad), trainer)

    @staticmethod
    def _stop(step: int, trainer: L.Trainer) -> None:
        checkpoints = find_checkpoints(trainer)
        best = checkpoints.best_model_path if checkpoints else ""
        kept = (
            f"The last good checkpoint is kept: {best}" if best else "No checkpoint was saved yet."
        )
        raise MisconfigurationException(
            f"the training loss is NaN or infinite at step {step} (epoch {trainer.current_epoch}), "
            "so training stopped. Lower the learning rate, add warm-up or "
            f"--trainer.gradient_clip_val 1.0, or look for bad values in the data. {kept}"
        )
