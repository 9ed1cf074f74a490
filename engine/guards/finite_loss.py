"""Stop at the first NaN or infinite loss, before it reaches weights or a checkpoint."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from engine.checkpoint.writing import find_checkpoints
from engine.errors import UserError


class FiniteLoss(L.Callback):
    """Raise when the training loss is NaN or infinite, and name the step.

    On a CPU the loss is checked before each backward pass. On other devices that would synchronize
    with the host, so the device stores the first bad step, which is read every
    `trainer.log_every_n_steps` and before a checkpoint is written: none ever holds NaN weights.
    """

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None  # step, on the device; infinity if there is none

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
            self._check(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        if self._first_bad is not None and self._first_bad.isfinite():
            self._stop(int(self._first_bad), trainer)

    @staticmethod
    def _stop(step: int, trainer: L.Trainer) -> None:
        checkpoints = find_checkpoints(trainer)
        best = checkpoints.best_model_path if checkpoints else ""
        saved = f"Best checkpoint so far: {best}" if best else "No checkpoint was saved yet."
        raise UserError(
            f"the training loss is NaN or infinite at step {step} (epoch {trainer.current_epoch}). "
            "Lower the learning rate, add warm-up or --trainer.gradient_clip_val 1.0, or check the "
            f"data for bad values. {saved}"
        )
