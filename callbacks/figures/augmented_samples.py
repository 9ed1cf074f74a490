"""What augmentation makes of the pictures, before any time is spent on training with them."""

from typing import Any, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch import Tensor

from engine.run.figures import BLUE, ORANGE, publish, short_names
from plotting.denormalize import denormalize, is_image_batch
from plotting.image_grid import Caption, image_grid


class AugmentedSamples(Callback):
    """Draws `figures/augmented_samples.png` when a fit starts.

    Each row begins with a training picture as it is, titled in blue; the cells after it are fresh
    draws of what the net will be given in its place. Labels that are mixed are told with their
    shares. Training goes on as if nothing had been drawn. Needs a DataModule whose batches are
    `(pictures, labels)`, augmented after their transfer to the device, or one that has
    `augmented_examples`; and a task with `class_names`.

    Args:
        rows: Training pictures, at least 1.
        columns: The picture itself and its draws, at least 2.
    """

    def __init__(self, rows: int = 6, columns: int = 9) -> None:
        if rows < 1 or columns < 2:
            raise ValueError(
                f"rows must be at least 1 and columns at least 2, not {rows} and {columns}."
            )
        self.rows = rows
        self.columns = columns

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():
            if hasattr(data, "augmented_examples"):  # its loader has augmented them already
                rows, draws = data.augmented_examples(self.rows, self.columns - 1)
                self._publish(trainer, pl_module, rows, draws)
                return
            # A loader of its own: the one that trains must not lose a batch.
            batch = None if data is None else next(iter(data.train_dataloader()))
            if batch is None or not _are_pictures(batch[0]):
                rank_zero_warn(
                    "AugmentedSamples draws nothing: it shows grey or RGB pictures (B, 1 or 3, H, "
                    "W) of a DataModule, and this fit has none. Leave the callback out here."
                )
                return
            rows = batch[0][: self.rows], batch[1][: self.rows]
            draws = [data.on_after_batch_transfer(rows, 0) for _ in range(self.columns - 1)]
            self._publish(trainer, pl_module, rows, draws)

    def _publish(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        rows: tuple[Tensor, Tensor],
        draws: list[tuple[Tensor, Tensor]],
    ) -> None:
        pictures = [_as_it_is(rows[0], trainer)]
        pictures += [denormalize(inputs, trainer) for inputs, _ in draws]
        names = short_names(cast(list[str], pl_module.class_names))
        labels = [[_label(target, names) for target in targets] for _, targets in [rows, *draws]]
        publish(
            trainer, "augmented_samples", lambda: augmented_figure(np.stack(pictures, 1), labels)
        )


def augmented_figure(pictures: np.ndarray, labels: list[list[str]]) -> Figure:
    """Draws pictures (rows, columns, H, W, C); a label stands where it is not that of its row.

    Args:
        pictures: The first column as it is, the others augmented.
        labels: What each column, then each row in it, is labelled.
    """
    rows, columns = pictures.shape[:2]
    captions = [
        Caption(label[row], ORANGE if column else BLUE)
        if column == 0 or label[row] != labels[0][row]
        else None
        for row in range(rows)
        for column, label in enumerate(labels)
    ]
    heading = "Training pictures as they are (left) and as the net is given them"
    every = [picture for row in pictures for picture in row]
    return image_grid(heading, every, captions, columns, width=0.95, lines=1, fontsize=7)


def _are_pictures(inputs: Any) -> bool:
    return isinstance(inputs, Tensor) and is_image_batch(inputs.float())


def _as_it_is(pictures: Tensor, trainer: Trainer) -> np.ndarray:
    """Pictures (B, C, H, W) as a loader yields them, made (B, H, W, C) with values in 0 … 1."""
    if pictures.is_floating_point():
        return denormalize(pictures, trainer)
    return (pictures.float() / 255).permute(0, 2, 3, 1).numpy()


def _label(target: Tensor, names: list[str]) -> str:
    if target.ndim == 0:
        return names[int(target)]
    shares, classes = target.topk(2)  # of a mixture of two pictures
    first, second = (f"{names[int(k)]} {p:.0%}" for p, k in zip(shares, classes, strict=True))
    return names[int(classes[0])] if shares[1] < 0.005 else f"{first}, {second}"
