"""Find the largest batch size that fits into memory."""

import math
from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.utilities.parsing import lightning_setattr
from rich.console import Console

from callbacks.training.learning_rate_finder import no_search_on_resume
from engine.lightning_internals import reset_train_dataloader


class BatchSizeFinder(callbacks.BatchSizeFinder):
    """Lightning's BatchSizeFinder, limited to the size of the training set and exact on resume.

    Before the first step, the batch size is doubled after a few training steps each until memory
    runs out; the weights are restored and `batch_size` of the DataModule is set. Optimizer and
    schedule are created again, because an epoch now has fewer steps. Unlike Lightning's, it does
    not search again before validation or test, and a resumed run keeps its batch size.

    Args:
        steps_per_trial: Training steps per batch size.
        init_val: First batch size, at least 1.
        max_val: Largest batch size.
    """

    def __init__(self, steps_per_trial: int = 3, init_val: int = 32, max_val: int = 8192) -> None:
        super().__init__("power", steps_per_trial, init_val, max_val=max_val)
        self._batch_size: int | None = None  # found at the start of the run

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.ckpt_path is not None:
            self._restore(trainer, pl_module)
            return
        trainer.fit_loop.setup_data()
        samples = len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
        doublings = math.floor(math.log2(max(min(samples, self._max_val) / self._init_val, 1)))
        self._max_val = self._init_val * 2**doublings  # Lightning exceeds any other maximum
        super().on_fit_start(trainer, pl_module)
        trainer.ckpt_path = None  # that of the search, whose weights are restored
        trainer.strategy.setup_optimizers(trainer)
        self._batch_size = self.optimal_batch_size
        if trainer.is_global_zero:
            Console().print(f"batch size: {self.optimal_batch_size}")

    def _restore(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._batch_size is None:
            raise no_search_on_resume(self, "batch size")
        lightning_setattr(pl_module, "batch_size", self._batch_size)
        reset_train_dataloader(trainer)  # its batches have the size of the config
        trainer.fit_loop.setup_data()

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self._batch_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._batch_size = state_dict["batch_size"]

    def on_validation_start(self, *_: Any) -> None:
        """Evaluation needs less memory than training."""

    def on_test_start(self, *_: Any) -> None:
        """See `on_validation_start`."""

    def on_predict_start(self, *_: Any) -> None:
        """See `on_validation_start`."""
