"""The largest batch that fits: doubled until memory runs out or the data end."""

import math
from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.utilities.parsing import lightning_setattr
from rich.console import Console

from callbacks.training.learning_rate_finder import searched_too_late
from engine.lightning_internals import reset_train_dataloader


class BatchSizeFinder(callbacks.BatchSizeFinder):
    """Lightning's BatchSizeFinder, for data that refuse a batch larger than themselves.

    Before the first step of fit it trains for some steps with ever larger batches, puts the weights
    back, and sets `batch_size` of the data. Optimizer and schedule are then made anew: an epoch has
    fewer steps now. The parent would search again before every validation and test, and where a run
    goes on; there the size is kept that was found when it began.

    Args:
        steps_per_trial: Steps with each size.
        init_val: Size to begin with, at least 1.
        max_val: Size to end with in any case, even if more memory is left.
    """

    def __init__(self, steps_per_trial: int = 3, init_val: int = 32, max_val: int = 8192) -> None:
        super().__init__("power", steps_per_trial, init_val, max_val=max_val)
        self._found: int | None = None  # when the run began

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.ckpt_path is not None:
            self._keep(trainer, pl_module)
            return
        trainer.fit_loop.setup_data()
        rows = len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
        doublings = math.floor(math.log2(max(min(rows, self._max_val) / self._init_val, 1)))
        self._max_val = self._init_val * 2**doublings  # the search goes one step beyond any other
        super().on_fit_start(trainer, pl_module)
        trainer.ckpt_path = None  # not that of the search, whose weights are put back
        trainer.strategy.setup_optimizers(trainer)
        self._found = self.optimal_batch_size
        if trainer.is_global_zero:
            Console().print(f"batch size: {self.optimal_batch_size}")

    def _keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._found is None:
            raise searched_too_late(self, "batch size")
        lightning_setattr(pl_module, "batch_size", self._found)
        reset_train_dataloader(trainer)  # its batches have the size of the config
        trainer.fit_loop.setup_data()

    def state_dict(self) -> dict[str, Any]:
        return {"batch_size": self._found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._found = state_dict["batch_size"]

    def on_validation_start(self, *_: Any) -> None:
        """A batch that can be trained on can be evaluated."""

    def on_test_start(self, *_: Any) -> None:
        """A batch that can be trained on can be evaluated."""

    def on_predict_start(self, *_: Any) -> None:
        """A batch that can be trained on can be evaluated."""
