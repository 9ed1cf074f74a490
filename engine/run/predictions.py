"""The answers of `train.py predict`, one line a sample."""

import csv
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from engine.run.folder import run_folder


class PredictionWriter(BasePredictionWriter):
    """Write `predictions.csv` into the run folder: row, label, confidence; or row, text.

    The task's `predict_step` returns probabilities (B, K) and has `class_names`; or it returns B
    texts. Those stand in `predictions.txt`, too, a line each, as `sacrebleu` reads them.
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
        mine: Any = _joined(predictions)
        shares: list[Any] = [mine]
        if trainer.world_size > 1:  # each process has the rows that follow those of the one before
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, mine)
        if not trainer.is_global_zero:
            return
        found = _joined(shares)
        folder = run_folder(trainer)
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            if isinstance(found, list):
                table.writerow(["row", "text"])
                table.writerows(enumerate(found))
                lines = "".join(f"{' '.join(text.split())}\n" for text in found)
                (folder / "predictions.txt").write_text(lines, encoding="utf-8")
                return
            confidences, labels = found.max(dim=1)  # (N,), (N,)
            names: Any = pl_module.class_names
            table.writerow(["row", "label", "confidence"])
            pairs = zip(labels.tolist(), confidences.tolist(), strict=True)
            for row, (label, confidence) in enumerate(pairs):
                table.writerow([row, names[label], f"{confidence:.6f}"])


def _joined(parts: Sequence[Any]) -> Any:
    """One tensor (N, K) of several, or one list of texts."""
    if any(isinstance(part, list) for part in parts):
        return [text for part in parts for text in part]
    return torch.cat(list(parts)).cpu()
