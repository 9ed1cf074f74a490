"""Time per training step, measured from inside a fit."""

import time
from typing import Any, ClassVar

import lightning as L

WARM_UP = 3  # first steps that do not count, here and in the loops compared with


class StepTimer(L.Callback):
    """Seconds a step of the last fit: the mean, so that what happens only now and then counts.

    The first steps do not: they fill the memory and choose the kernels.
    """

    last: ClassVar[float]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._starts: list[float] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._starts.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        StepTimer.last = seconds_a_step(self._starts)


def seconds_a_step(starts: list[float]) -> float:
    """The mean over a run, from the times at which its steps began."""
    counted = starts[WARM_UP:]
    return (counted[-1] - counted[0]) / (len(counted) - 1)
