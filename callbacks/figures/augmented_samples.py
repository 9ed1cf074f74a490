"""Draw training images before and after augmentation."""

from typing import Any, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch import Tensor

from engine.guards.requirements import require_classification
from engine.run.figures import BLUE, ORANGE, publish, short_names
from plotting.denormalize import denormalize, is_image_batch
from plotting.image_grid import Caption, image_grid


class AugmentedSamples(Callback):
    """Draw `figures/augmented_samples.png` at the start of a fit.

    Each row starts with a training image, captioned in blue, followed by independent augmentations
    of it. Mixed labels are shown with their weights. The random state of training is not changed.
    Needs a task with `class_names`, and a DataModule with batches `(images, labels)` that augments
    them in `on_after_batch_transfer`, or with a method `augmented_examples(rows, draws)`.

    Args:
        rows: Number of training images, at least 1.
        columns: The image and its augmentations, at least 2.
    """

    def __init__(self, rows: int = 6, columns: int = 9) -> None:
        if rows < 1 or columns < 2:
            raise ValueError(
                "AugmentedSamples: rows must be at least 1 and columns at least 2, "
                f"got {rows} and {columns}."
            )
        self.rows = rows
        self.columns = columns

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_classification(self, trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        with isolate_rng():
            if hasattr(data, "augmented_examples"):  # its loader augments
                originals, draws = data.augmented_examples(self.rows, self.columns - 1)
            else:
                # A separate loader, so that the training loader does not lose a batch.
                batch = None if data is None else next(iter(data.train_dataloader()))
                if batch is None or not _has_images(batch):
                    rank_zero_warn(
                        "AugmentedSamples draws nothing: it needs a DataModule with batches of "
                        "grayscale or RGB images (B, 1 or 3, H, W) and labels. Remove the callback "
                        "from trainer.callbacks."
                    )
                    return
                originals = batch[0][: self.rows], batch[1][: self.rows]
                draws = [
                    data.on_after_batch_transfer(originals, 0) for _ in range(self.columns - 1)
                ]
        images = [_to_images(originals[0], trainer)]
        images += [denormalize(inputs, trainer) for inputs, _ in draws]
        names = short_names(cast(list[str], pl_module.class_names))
        labels = [[_label(t, names) for t in targets] for _, targets in [originals, *draws]]
        publish(trainer, "augmented_samples", lambda: augmented_figure(np.stack(images, 1), labels))


def augmented_figure(images: np.ndarray, labels: list[list[str]]) -> Figure:
    """Draw images (rows, columns, H, W, C); a caption repeats the label only if it changed.

    Args:
        images: The originals in the first column, augmentations in the others.
        labels: Label of each row, for each column.
    """
    rows, columns = images.shape[:2]
    captions = [
        Caption(label[row], ORANGE if column else BLUE)
        if column == 0 or label[row] != labels[0][row]
        else None
        for row in range(rows)
        for column, label in enumerate(labels)
    ]
    heading = "Training images (left) and their augmentations"
    cells = [image for row in images for image in row]
    return image_grid(heading, cells, captions, columns, width=0.95, lines=1, fontsize=7)


def _has_images(batch: Any) -> bool:
    inputs = batch[0] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    return isinstance(inputs, Tensor) and is_image_batch(inputs.float())


def _to_images(inputs: Tensor, trainer: Trainer) -> np.ndarray:
    """Convert loaded images (B, C, H, W) to (B, H, W, C) with values in [0, 1]."""
    if inputs.is_floating_point():
        return denormalize(inputs, trainer)
    return (inputs.float() / 255).permute(0, 2, 3, 1).numpy()


def _label(target: Tensor, names: list[str]) -> str:
    if target.ndim == 0:
        return names[int(target)]
    weights, classes = target.topk(2)  # of a mixture of two images
    first, second = (f"{names[int(k)]} {p:.0%}" for p, k in zip(weights, classes, strict=True))
    return names[int(classes[0])] if weights[1] < 0.005 else f"{first}, {second}"
