"""What a classifier would answer at every threshold: ROC and precision-recall curves."""

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

NAMED = 10  # classes that have a colour and a line in the legend


def threshold_figure(logits: Tensor, labels: Tensor, class_names: list[str]) -> Figure:
    """Draws for each class against all others, from logits (N, K) and labels (N,).

    Classes without an example have no curve. Of many classes the worst have colours and names.
    """
    classes = len(class_names)
    plain: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    shares = logits.float().softmax(dim=1)
    present = torch.bincount(labels, minlength=classes) > 0
    false, true, _ = multiclass_roc(shares, labels, **plain)
    precision, recall, _ = multiclass_precision_recall_curve(shares, labels, **plain)
    areas = multiclass_auroc(shares, labels, average="none", **plain)
    averages = multiclass_average_precision(shares, labels, average="none", **plain)

    order = [k for k in areas.argsort(stable=True).tolist() if present[k]]  # the worst first

    figure = Figure(figsize=(10, 4.9))
    left, right = figure.subplots(1, 2)
    names = short_names(class_names)
    _draw(left, false, true, areas, order, names, "AUC")
    _draw(right, recall, precision, averages, order, names, "AP")
    left.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    left.set(xlabel="false positives, share of all others", ylabel="true positives (recall)")
    left.set_title(f"ROC: mean AUC {areas[present].mean():.4f}")
    right.set(xlabel="recall", ylabel="precision")
    right.set_title(f"Precision and recall: mean AP {averages[present].mean():.4f}")
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.grid()
    figure.suptitle(f"Each class against all others, {len(labels):,} examples")
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
    for k in order[NAMED:]:
        axes.plot(xs[k], ys[k], color=PALE, linewidth=0.8)
    for number, k in enumerate(order[:NAMED]):
        label = f"{names[k]}, {word} {areas[k]:.4f}"
        # Six colours; after them the same once more, broken.
        axes.plot(xs[k], ys[k], label=label, linestyle="-" if number < 6 else "--")
    title = "the worst classes" if len(order) > NAMED else None
    axes.legend(loc="lower center" if word == "AP" else "lower right", title=title)
