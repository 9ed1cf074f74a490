"""Draw accuracy against confidence on the test set."""

from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from engine.guards.requirements import class_logits, require_classification
from engine.run.figures import publish
from plotting.reliability_diagram import reliability_figure, sums_by_confidence


class ReliabilityDiagram(Callback):
    """Draw `figures/reliability_diagram.png` after a test, with the expected calibration error.

    The task needs `class_names`, and a `test_step` that returns `{"logits": (B, K)}`.

    Args:
        bins: Number of bins of equal width for confidences in [0, 1], at least 1.
    """

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"ReliabilityDiagram: bins must be at least 1, got {bins}.")
        self.bins = bins

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_classification(self, trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.sums = torch.zeros(3, self.bins + 1, device=pl_module.device)

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
        if logits is not None:
            self.sums += sums_by_confidence(logits, targets, self.bins)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sums = cast(Tensor, trainer.strategy.reduce(self.sums, reduce_op="sum")).cpu().numpy()
        publish(
            trainer,
            "reliability_diagram",
            lambda: reliability_figure(*sums) if sums[0].any() else None,
        )
