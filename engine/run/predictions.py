"""Write the predictions of `train.py predict`, one row per sample."""

import csv
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from engine.run.folder import run_folder

THRESHOLD = 0.5  # minimum probability of a predicted label in multi-label classification


class PredictionWriter(BasePredictionWriter):
    """Write `predictions.csv` into the run folder.

    The task's `predict_step` returns class probabilities (B, K), numbers (B,), or B texts, which
    are also written to `predictions.txt`, one per line. The columns are `row`, those of the
    DataModule's `predict_columns`, such as `path`, `text` and `true_class`, then `prediction`; for
    classes also `confidence` and the probability of every class; for generated texts `row` and
    `text`.
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
        local: Any = _concatenate(predictions)
        shards: list[Any] = [local]
        if trainer.world_size > 1:  # ranks hold consecutive rows
            shards = [None] * trainer.world_size
            torch.distributed.all_gather_object(shards, local)
        if not trainer.is_global_zero:
            return
        outputs = _concatenate(shards)
        folder = run_folder(trainer)
        columns: dict[str, list[Any]] = {}
        if isinstance(outputs, list):
            lines = "".join(f"{' '.join(text.split())}\n" for text in outputs)
            (folder / "predictions.txt").write_text(lines, encoding="utf-8")
            header, rows = ["text"], [[text] for text in outputs]
        else:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            header, rows = _table(outputs, pl_module, getattr(data, "target", "class"))
            columns = getattr(data, "predict_columns", {})
            if trainer.world_size > 1 and any(len(c) != len(outputs) for c in columns.values()):
                columns = {}  # with limit_predict_batches every rank lacks some of its rows
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["row", *columns, *header])
            for number, row in enumerate(rows):
                table.writerow([number, *(column[number] for column in columns.values()), *row])


def _table(
    outputs: Tensor, task: L.LightningModule, target: str
) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows for numbers (N,) or class probabilities (N, K)."""
    if outputs.ndim == 1:
        return ["prediction"], [[number] for number in outputs.tolist()]
    names: list[str] = task.class_names  # type: ignore[assignment]
    rows = []
    for probabilities in outputs.tolist():
        best = max(probabilities)
        chosen = [name for name, p in zip(names, probabilities, strict=True) if p >= THRESHOLD]
        single = names[probabilities.index(best)]
        prediction = "; ".join(chosen) if target == "labels" else single
        rows.append([prediction, *(f"{p:.6f}" for p in (best, *probabilities))])
    return ["prediction", "confidence", *(f"probability_{name}" for name in names)], rows


def _concatenate(parts: Sequence[Any]) -> Any:
    """Concatenate tensors (B, …) to one (N, …), or lists of texts."""
    if any(isinstance(part, list) for part in parts):
        return [text for part in parts for text in part]
    return torch.cat(list(parts)).float().cpu()
