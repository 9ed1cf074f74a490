"""A progress bar that a fast training loop does not feel."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from typing_extensions import override

FRAMES_PER_SECOND = 4
INTERVAL = 20  # batches; a multiple of the above, because the parent divides by that


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, touched every 20 batches and drawn 4 times a second.

    The parent gathers every metric after every step, which costs more than a step of a small net,
    and takes its `refresh_rate` for batches and for frames a second alike.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=FRAMES_PER_SECOND)

    @override
    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the run folder is named at the end
        return metrics

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        # Where steps are counted there is no last epoch, and the parent would number it -2.
        return super()._get_train_description(current_epoch).replace("/-2", "")

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        total = self.total_train_batches
        interval = INTERVAL if total >= 10 * INTERVAL else FRAMES_PER_SECOND
        if (batch_idx + 1) % interval == 0 or batch_idx + 1 == total:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
