"""A progress bar that a fast training loop does not feel."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, touched only when it is about to be redrawn.

    The parent gathers every metric after every step, which costs more than a step of a small net.

    Args:
        refresh_rate: Redraw after so many batches; 0 shows no bar.
        leave: Keep a finished epoch's bar on the screen.
    """

    def __init__(self, refresh_rate: int = 20, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)

    @override
    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the run folder is named at the end
        return metrics

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.is_enabled and (
            (batch_idx + 1) % self.refresh_rate == 0 or batch_idx + 1 == self.total_train_batches
        ):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
