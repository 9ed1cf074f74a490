"""Draw the most confident errors on the test set, images or texts."""

from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from engine.guards.requirements import class_logits, require_classification
from engine.run.figures import publish
from plotting.denormalize import denormalize
from plotting.mistakes import (
    Predictions,
    displayable_samples,
    image_mistakes_figure,
    mistakes_text,
    prediction_passages,
    text_mistakes_figure,
)


class Mistakes(Callback):
    """Draw `figures/mistakes.png` after a test: the errors with the highest confidence.

    If there are fewer errors than cells, the least confident correct predictions follow in blue. Of
    texts the figure shows twelve and `samples/mistakes.txt` all that are kept. Texts are the raw
    ones if the DataModule has `raw_texts(split)` and `evaluation_rows(split)`, else decoded tokens.
    The task needs `class_names`, for texts `decode_tokens(tokens)`, and a `test_step` that returns
    `{"logits": (B, K)}`.

    Args:
        rows: Rows of images, at least 1.
        columns: Images per row, at least 1. Of texts, `rows * columns` are kept.
    """

    def __init__(self, rows: int = 4, columns: int = 8) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(
                f"Mistakes: rows and columns must be at least 1, got {rows} and {columns}."
            )
        self.rows = rows
        self.columns = columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_classification(self, trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.kept: Predictions | None = None
        self.totals = torch.zeros(2, dtype=torch.long, device=pl_module.device)  # samples, errors
        data: Any = getattr(trainer, "datamodule", None)
        has_raw_texts = hasattr(data, "raw_texts") and hasattr(data, "evaluation_rows")
        self.texts = data.raw_texts("test") if has_raw_texts else None
        self.sample_rows = data.evaluation_rows("test") if has_raw_texts else None

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
        samples = displayable_samples(batch[0])
        if samples is None or (samples.ndim == 2 and not hasattr(pl_module, "decode_tokens")):
            rank_zero_warn(
                "Mistakes draws nothing: it shows grayscale or RGB images (B, 1 or 3, H, W) and "
                "texts, and this test set has neither. Remove the callback from trainer.callbacks."
            )
            return
        rows = None if self.sample_rows is None else self.sample_rows[batch_idx]
        new = Predictions.from_logits(samples, logits, targets, rows)
        errors = new.predicted != targets
        self.totals += torch.stack([torch.ones_like(targets), errors]).sum(dim=1)
        # Only the figure's samples stay in memory, however large the test set is.
        parts = [new] if self.kept is None else [self.kept, new]
        self.kept = self._select(parts)

    def _select(self, parts: list[Predictions]) -> Predictions:
        return Predictions.concatenate(parts).most_confident_errors(self.rows * self.columns)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        kept, self.kept = self.kept, None
        if kept is None:
            return
        kept = kept.cpu()
        reduced = cast(Tensor, trainer.strategy.reduce(self.totals, reduce_op="sum"))
        total, errors = reduced.tolist()
        if trainer.world_size > 1:
            # Objects, because tensors must have equal shapes and some ranks have fewer samples.
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, kept)
            kept = self._select(gathered)
        task = cast(Any, pl_module)
        names = [str(name) for name in task.class_names]
        if kept.samples.ndim > 2:
            images = denormalize(kept.samples, trainer)
            publish(
                trainer,
                "mistakes",
                lambda: image_mistakes_figure(images, kept, names, self.columns, total, errors),
            )
            return
        passages = prediction_passages(kept, names, task.decode_tokens, self.texts)
        publish(trainer, "mistakes", lambda: text_mistakes_figure(passages, total, errors))
        folder = trainer.log_dir  # a collective
        if trainer.is_global_zero and folder is not None:
            path = Path(folder, "samples", "mistakes.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mistakes_text(passages, total, errors), encoding="utf-8")
