"""ROC and precision-recall curves of a classifier."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_precision_recall_curve,
    multiclass_roc,
)

from engine.run.figures import INK, PALE, short_names

MAX_LEGEND_CLASSES = 10  # classes with a color and a legend entry


def threshold_figure(logits: Tensor, labels: Tensor, class_names: list[str]) -> Figure:
    """Draw one-vs-rest curves of each class from logits (N, K) and labels (N,).

    Classes without examples have no curve. Of many classes only the worst have a legend entry.
    """
    classes = len(class_names)
    plain: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    probabilities = logits.float().softmax(dim=1)
    present = torch.bincount(labels, minlength=classes) > 0
    false, true, _ = multiclass_roc(probabilities, labels, **plain)
    precision, recall, _ = multiclass_precision_recall_curve(probabilities, labels, **plain)
    areas = multiclass_auroc(probabilities, labels, average="none", **plain)
    averages = multiclass_average_precision(probabilities, labels, average="none", **plain)

    order = [k for k in areas.argsort(stable=True).tolist() if present[k]]  # the worst first

    figure = Figure(figsize=(10, 4.9))
    left, right = figure.subplots(1, 2)
    names = short_names(class_names)
    _draw(left, false, true, areas, order, names, "AUC")
    _draw(right, recall, precision, averages, order, names, "AP")
    left.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    left.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    left.set_title(f"ROC: mean AUC {areas[present].mean():.4f}")
    right.set(xlabel="recall", ylabel="precision")
    right.set_title(f"Precision and recall: mean AP {averages[present].mean():.4f}")
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.grid()
    figure.suptitle(f"One-vs-rest curves, {len(labels):,} examples")
    return figure


def _draw(
    axes: Axes,
    xs: Sequence[Tensor] | Tensor,
    ys: Sequence[Tensor] | Tensor,
    areas: Tensor,
    order: list[int],
    names: list[str],
    word: str,
) -> None:
    for k in order[MAX_LEGEND_CLASSES:]:
        axes.plot(xs[k], ys[k], color=PALE, linewidth=0.8)
    for number, k in enumerate(order[:MAX_LEGEND_CLASSES]):
        label = f"{names[k]}, {word} {areas[k]:.4f}"
        # The palette has six colors; after those, repeat them dashed.
        axes.plot(xs[k], ys[k], label=label, linestyle="-" if number < 6 else "--")
    title = "worst classes" if len(order) > MAX_LEGEND_CLASSES else None
    axes.legend(loc="lower center" if word == "AP" else "lower right", title=title)
