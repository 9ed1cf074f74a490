"""Time per training step, measured from inside a fit."""

import time
from typing import Any, ClassVar

import lightning as L


class StepTimer(L.Callback):
    """Seconds a step of the last fit: the mean, so that what happens only now and then counts."""

    last: ClassVar[float]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._starts: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._starts.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        StepTimer.last = (self._starts[-1] - self._starts[0]) / (len(self._starts) - 1)
