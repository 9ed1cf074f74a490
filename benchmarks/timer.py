"""Time per training step, measured from inside a fit."""

import time
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import GradientNorms, LearningRate, Memory, Speed
from callbacks.monitoring.speed import now

WINDOW = 50  # steps of a run, with one logging among them
WATCHED = (True, False, False, True)  # the windows of a group: with callbacks or without
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
        self._starts.append(start(pl_module.device, len(self._starts)))

    def on_train_batch_end(self, *args: Any) -> None:
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type == "cuda":  # what it was told may not be done yet
            self._ended = now(pl_module.device)
        self._starts.append(self._ended)
        StepTimer.last = seconds_a_step(self._starts)


def start(device: torch.device, number: int) -> float:
    """When a step begins. A GPU is waited for before the first one that counts, and then at the end
    only: what is told to it meanwhile is told while it works."""
    return now(device) if number == WARM_UP else time.perf_counter()


def seconds_a_step(starts: list[float]) -> float:
    """The mean over a run, from the times at which its steps began and the last one ended."""
    counted = starts[WARM_UP:]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


class Alternation(L.Callback):
    """Takes the watching callbacks away and puts them back; remembers how long windows took."""

    seconds: ClassVar[list[float]]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        kinds = (Speed, LearningRate, GradientNorms, Memory)
        everything: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._with = list(everything)
        self._without = [one for one in everything if not isinstance(one, kinds)]
        if len(self._with) != len(self._without) + len(kinds):
            raise MisconfigurationException("the callbacks to be measured are not there.")
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
        watched = WATCHED[window % len(WATCHED)]
        trainer.callbacks = self._with if watched else self._without  # type: ignore[attr-defined]
        self._started = now
