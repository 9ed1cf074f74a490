"""The answers of `train.py predict`, one line a sample."""

import csv
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from callbacks.run_folder import run_folder


class Predictions(BasePredictionWriter):
    """Write `predictions.csv` into the run folder: row, label, confidence.

    The task's `predict_step` returns probabilities (B, K) and has `class_names`.
    """

    def __init__(self) -> None:
        interval: Literal["epoch"] = "epoch"
        super().__init__(write_interval=interval)

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        shares: list[Any] = [torch.cat(list(predictions)).cpu()]  # (N, K)
        if trainer.world_size > 1:  # each process has the rows that follow those of the one before
            mine, shares = shares[0], [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, mine)
        if not trainer.is_global_zero:
            return
        confidences, labels = torch.cat(shares).max(dim=1)  # (N,), (N,)
        names: Any = pl_module.class_names
        with (run_folder(trainer) / "predictions.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "label", "confidence"])
            pairs = zip(labels.tolist(), confidences.tolist(), strict=True)
            for row, (label, confidence) in enumerate(pairs):
                table.writerow([row, names[label], f"{confidence:.6f}"])
