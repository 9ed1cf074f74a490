"""Python's garbage collector leaves alone what lives as long as the run."""

import gc
from typing import Any

import lightning as L


class GarbageCollection(L.Callback):
    """After the first step, what is there is taken for permanent until training is over.

    Now and then Python looks through all objects for circles that nothing refers to. PyTorch and
    Lightning are a million of them, which takes a quarter of a second, in the middle of a step and
    for nothing: 2 ms a step in a run of a hundred steps, and a GPU that is not told what comes
    next. What is made later is looked through as ever. A program that has frozen objects of its
    own keeps them: thawing knows no difference, so nothing is done then.
    """

    def __init__(self) -> None:
        self._begun = self._frozen = False

    def on_train_batch_end(self, *_: Any) -> None:
        if self._begun:
            return
        self._begun = True  # by now all is imported, compiled and built
        if gc.get_freeze_count() == 0:
            self._frozen = True
            gc.collect()
            gc.freeze()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._thaw()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._thaw()

    def _thaw(self) -> None:
        if self._frozen:
            gc.unfreeze()
        self._begun = self._frozen = False
