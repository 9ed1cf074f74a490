"""Callbacks that measure the time per training step."""

import time
from typing import Any, ClassVar

import lightning as L
import torch

from callbacks import GradientNorms, LearningRate, Memory, Speed
from engine.errors import UserError
from engine.run.flops import synchronized_time

WINDOW = 50  # steps, one of which logs
MONITORED = (True, False, False, True)  # windows of a group: with or without callbacks
WARM_UP = 3  # first steps that are not counted, here and in the loops of reference


class StepTimer(L.Callback):
    """Measure the mean seconds per step of a fit, without the first steps.

    The mean includes what happens only in some steps, such as logging. The first steps allocate
    memory and select kernels.
    """

    last: ClassVar[float]
    starts: ClassVar[list[float]]  # start times of all steps, and the end of the last one

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        StepTimer.starts = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.starts.append(start(pl_module.device, len(self.starts)))

    def on_train_batch_end(self, *args: Any) -> None:
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type == "cuda":  # kernels may still be running
            self._ended = synchronized_time(pl_module.device)
        self.starts.append(self._ended)
        StepTimer.last = seconds_per_step(self.starts)


def start(device: torch.device, number: int) -> float:
    """Return the start time of a step; synchronize a GPU only before the first counted step."""
    return synchronized_time(device) if number == WARM_UP else time.perf_counter()


def seconds_per_step(starts: list[float]) -> float:
    """Return the mean, from the start times of all steps and the end of the last one."""
    counted = starts[WARM_UP:]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


class Alternation(L.Callback):
    """Remove and restore the monitoring callbacks by turns, and time each window."""

    seconds: ClassVar[list[float]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kinds = (Speed, LearningRate, GradientNorms, Memory)
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._with = list(callbacks)
        self._without = [one for one in callbacks if not isinstance(one, kinds)]
        if len(self._with) != len(self._without) + len(kinds):
            raise UserError("the monitoring callbacks are missing.")
        self._batches = 0
        self._started = 0.0
        Alternation.seconds = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        window, within = divmod(self._batches, WINDOW)
        self._batches += 1
        if within:
            return
        now = time.perf_counter()
        if window:
            Alternation.seconds.append(now - self._started)
        monitored = MONITORED[window % len(MONITORED)]
        self.switch(trainer, monitored)
        self._started = now

    def switch(self, trainer: L.Trainer, monitored: bool) -> None:
        trainer.callbacks = self._with if monitored else self._without  # type: ignore[attr-defined]


class TrackerAlternation(Alternation):
    """Remove and restore the loggers other than that of the run folder by turns."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._loggers = list(trainer.loggers)
        if len(self._loggers) < 2:
            raise UserError("the tracker is missing.")
        self._batches = 0
        self._started = 0.0
        Alternation.seconds = []

    def switch(self, trainer: L.Trainer, monitored: bool) -> None:
        trainer.loggers = self._loggers if monitored else self._loggers[:1]
