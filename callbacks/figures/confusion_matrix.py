"""Which class is taken for which: the confusion matrix of the test set as a figure."""

import math
import textwrap
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from engine.run.figures import INK, publish

DIAGONAL = LinearSegmentedColormap.from_list("right", ["#F4F8FB", "#9CC4E0"])
ERRORS = colormaps["OrRd"]


class ConfusionMatrix(Callback):
    """Draws `figures/confusion_matrix.png` after a test: counts, shaded by share of the true class.

    The task must have `class_names` and its `test_step` return `{"logits": (B, K)}`.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        classes = len(cast(list[str], pl_module.class_names))
        self.counts = torch.zeros(classes, classes, dtype=torch.long, device=pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        _, targets = batch
        cells = targets * len(self.counts) + outputs["logits"].argmax(dim=-1)  # (B,)
        # Integer sums have one result in any order, and unlike bincount this needs no sync on GPUs.
        self.counts.view(-1).scatter_add_(0, cells, torch.ones_like(cells))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = cast(Tensor, trainer.strategy.reduce(self.counts, reduce_op="sum")).cpu().numpy()
        names = [str(name) for name in cast(list[str], pl_module.class_names)]
        publish(trainer, "confusion_matrix", lambda: confusion_figure(counts, names))


def confusion_figure(counts: np.ndarray, class_names: list[str]) -> Figure:
    """Draws counts (K, K), rows the true and columns the predicted classes.

    Right answers and errors have a scale of their own, so that a good net's diagonal does not make
    its few errors invisible; the errors' scale also bends (square root) to lift the rare ones.
    """
    classes = len(counts)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)  # of the true class
    diagonal = np.eye(classes, dtype=bool)
    worst = max(float(shares[~diagonal].max(initial=0)), 0.01)
    norm = PowerNorm(0.5, vmin=0, vmax=worst)
    colors = np.where(diagonal[..., None], DIAGONAL(shares), ERRORS(norm(shares)))  # (K, K, 4)
    colors[~diagonal & (counts == 0)] = 1  # nothing happened here: white

    side = max(3.0, min(0.5 * classes, 5 + 0.07 * classes, 12.0))  # inches
    cell = side * 72 / classes  # points
    figure = Figure(figsize=(side + 1.9, side + 1.3))
    axes = figure.add_subplot()
    axes.imshow(colors)
    axes.spines[:].set_visible(True)
    names = [_shorten(name) for name in class_names]
    _name_axes(axes, names, cell)

    digits = len(str(counts.max()))
    size = min(10.0, cell / (0.62 * digits + 0.4))  # a digit is about 0.62 times as wide as high
    if size >= 5:  # smaller ones nobody can read: the relative_weights must do
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = row != column and norm(shares[row, column]) > 0.6
            color = "white" if dark else INK
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)

    scale = figure.colorbar(
        ScalarMappable(norm, ERRORS),
        ax=axes,
        fraction=0.035,
        pad=0.02,
        aspect=30,
        format=PercentFormatter(1),
    )
    scale.set_label("errors, share of the true class")
    scale.outline.set_visible(False)

    total = int(counts.sum())
    wrong = total - int(np.trace(counts))
    accuracy = (total - wrong) / max(total, 1)
    frequent = textwrap.fill(_frequent_errors(counts, names), int(18 * side))  # 18 letters an inch
    pad = 9 + 11 * (frequent.count("\n") + 1)
    axes.set_title(f"Accuracy {accuracy:.2%}: {wrong:,} of {total:,} wrong", fontsize=11, pad=pad)
    axes.annotate(
        frequent,
        (0.5, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    return figure


def _shorten(name: str) -> str:
    name = name if len(name) <= 20 else f"{name[:19]}…"
    return name.replace("$", r"\$")  # matplotlib would read a pair of them as mathematics


def _name_axes(axes: Axes, names: list[str], cell: float) -> None:
    size = max(4.5, min(8.0, 0.8 * cell))
    every = math.ceil(1.1 * size / cell)  # beyond about 170 classes names would overlap
    ticks = range(0, len(names), every)
    shown = [names[tick] for tick in ticks]
    axes.set_yticks(ticks, shown, fontsize=size)
    fits = max(map(len, shown)) * 0.65 * size < cell * every
    axes.set_xticks(ticks, shown, fontsize=size, rotation=0 if fits else 90)
    axes.tick_params(length=0)
    if cell > 10:  # thin lines lead the eye from a far cell to its names
        axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _frequent_errors(counts: np.ndarray, names: list[str], most: int = 3) -> str:
    errors = counts - np.diag(np.diag(counts))
    cells = np.argsort(-errors, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(cell, errors.shape) for cell in cells]
    told = [
        f"{names[true]} → {names[predicted]} ({errors[true, predicted]:,})"
        for true, predicted in pairs
        if errors[true, predicted] > 0
    ]
    return f"most often {', '.join(told)}" if told else "no mistake"
