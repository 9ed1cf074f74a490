"""Draw the confusion matrix of the test set."""

from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from engine.guards.requirements import class_logits, require_classification
from engine.run.figures import publish
from plotting.confusion_matrix import confusion_figure


class ConfusionMatrix(Callback):
    """Draw `figures/confusion_matrix.png` after a test: counts, colored by rate in the true class.

    The task needs `class_names`, and a `test_step` that returns `{"logits": (B, K)}`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_classification(self, trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        num_classes = len(cast(list[str], pl_module.class_names))
        shape = num_classes, num_classes
        self.counts = torch.zeros(shape, dtype=torch.long, device=pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        logits, targets = class_logits(self, outputs, batch)
        if logits is None:
            return
        cells = targets * len(self.counts) + logits.argmax(dim=-1)  # (B,)
        # Integer sums do not depend on the order, and unlike bincount this does not sync the GPU.
        self.counts.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = cast(Tensor, trainer.strategy.reduce(self.counts, reduce_op="sum")).cpu().numpy()
        names = [str(name) for name in cast(list[str], pl_module.class_names)]
        publish(
            trainer,
            "confusion_matrix",
            lambda: confusion_figure(counts, names) if counts.any() else None,
        )
