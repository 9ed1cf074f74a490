"""Draw a confusion matrix."""

import math
import textwrap

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from engine.run.figures import INK
from plotting.colored_text import escape_math

DIAGONAL = LinearSegmentedColormap.from_list("correct", ["#F4F8FB", "#9CC4E0"])
ERRORS = colormaps["OrRd"]


def confusion_figure(counts: np.ndarray, class_names: list[str]) -> Figure:
    """Draw counts (K, K) with true classes as rows and predicted classes as columns.

    Correct predictions and errors have separate color scales, so that the diagonal of a good model
    does not hide its few errors; that of the errors is a square root, which emphasizes rare ones.
    """
    num_classes = len(counts)
    rates = counts / counts.sum(axis=1, keepdims=True).clip(min=1)  # within the true class
    diagonal = np.eye(num_classes, dtype=bool)
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(rates[~diagonal].max(initial=0)), 0.01))
    colors = np.where(diagonal[..., None], DIAGONAL(rates), ERRORS(norm(rates)))  # (K, K, 4)
    colors[~diagonal & (counts == 0)] = 1  # white

    side = max(3.0, min(0.5 * num_classes, 5 + 0.07 * num_classes, 12.0))  # inches
    cell = side * 72 / num_classes  # points
    figure = Figure(figsize=(side + 1.9, side + 1.3))
    axes = figure.add_subplot()
    axes.imshow(colors)
    axes.spines[:].set_visible(True)
    names = [escape_math(name if len(name) <= 20 else f"{name[:19]}…") for name in class_names]
    _label_axes(axes, names, cell)

    digits = len(str(counts.max()))
    size = min(10.0, cell / (0.62 * digits + 0.4))  # a digit is about 0.62 times as wide as high
    if size >= 5:  # smaller numbers are not readable
        for row, column in zip(*np.nonzero(counts), strict=True):
            is_dark = row != column and norm(rates[row, column]) > 0.6
            color = "white" if is_dark else INK
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
    scale.set_label("error rate within true class")
    scale.outline.set_visible(False)

    total = int(counts.sum())
    errors = total - int(np.trace(counts))
    accuracy = (total - errors) / max(total, 1)
    frequent = textwrap.fill(_frequent_errors(counts, names), int(18 * side))  # 18 letters an inch
    pad = 9 + 11 * (frequent.count("\n") + 1)
    axes.set_title(f"Accuracy {accuracy:.2%}: {errors:,} of {total:,} wrong", fontsize=11, pad=pad)
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


def _label_axes(axes: Axes, names: list[str], cell: float) -> None:
    size = max(4.5, min(8.0, 0.8 * cell))
    every = math.ceil(1.1 * size / cell)  # beyond about 170 classes names would overlap
    ticks = range(0, len(names), every)
    labels = [names[tick] for tick in ticks]
    axes.set_yticks(ticks, labels, fontsize=size)
    fits = max(map(len, labels)) * 0.65 * size < cell * every
    axes.set_xticks(ticks, labels, fontsize=size, rotation=0 if fits else 90)
    axes.tick_params(length=0)
    if cell > 10:  # grid lines between the cells
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
    listed = [
        f"{names[true]} → {names[predicted]} ({errors[true, predicted]:,})"
        for true, predicted in pairs
        if errors[true, predicted] > 0
    ]
    return (
        f"most frequent errors (true → predicted): {', '.join(listed)}" if listed else "no errors"
    )
