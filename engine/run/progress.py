"""Progress bar that costs a fast training loop next to nothing."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console
from typing_extensions import override

FRAMES_PER_SECOND = 4
INTERVAL = 20  # batches; a multiple of FRAMES_PER_SECOND, by which the parent divides


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, updated every 20 batches and drawn 4 times per second.

    The parent gathers all metrics after each step, which takes longer than a step of a small
    network, and uses its `refresh_rate` both for batches and for frames per second. Where the
    output is a file or a pipe, there is no bar.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=FRAMES_PER_SECOND)
        console = Console()
        if not (console.is_terminal or console.is_jupyter):
            self.disable()

    @override
    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the summary names the run folder
        return metrics

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        # With max_epochs -1 the parent would show "Epoch 0/-2".
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
