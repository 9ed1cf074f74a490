"""Is a net as often right as it is sure? Confidence against accuracy, on the test set.

Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from engine.run.figures import BLUE, GREEN, INK, ORANGE, PALE, SKY, publish


class ReliabilityDiagram(Callback):
    """Draws `figures/reliability_diagram.png` after a test, with the expected calibration error.

    The task's `test_step` must return `{"logits": (B, K)}`.

    Args:
        bins: Number of equal bins that the confidences 0 … 1 fall into, at least 1.
    """

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}.")
        self.bins = bins

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.sums = torch.zeros(3, self.bins + 1, device=pl_module.device)

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
        self.sums += sums_by_confidence(outputs["logits"], targets, self.bins)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sums = cast(Tensor, trainer.strategy.reduce(self.sums, reduce_op="sum")).cpu().numpy()
        publish(trainer, "reliability_diagram", lambda: reliability_figure(*sums))


def sums_by_confidence(logits: Tensor, targets: Tensor, bins: int) -> Tensor:
    """Sorts answers into bins by confidence: how many, how many right, sum of confidences.

    torchmetrics gives a confidence of exactly 1 a bin of its own, hence one more: so our ECE is its
    ECE.

    Args:
        logits: (B, K).
        targets: Class numbers (B,).
        bins: Number of equal bins of 0 … 1.

    Returns:
        (3, bins + 1).
    """
    confidences, predicted = logits.float().softmax(dim=-1).max(dim=-1)  # (B,)
    right = (predicted == targets).float()
    edges = torch.linspace(0, 1, bins + 1, device=confidences.device)
    index = torch.bucketize(confidences, edges, right=True) - 1  # (B,)
    values = torch.stack([torch.ones_like(right), right, confidences])  # (3, B)
    sums = torch.zeros(3, bins + 1, device=confidences.device)
    return sums.scatter_add_(1, index.expand(3, -1), values)


def expected_calibration_error(
    counts: np.ndarray, right: np.ndarray, confidences: np.ndarray
) -> float:
    r"""ECE = Σ_b n_b / n · |accuracy_b − confidence_b| = Σ_b |right_b − confidences_b| / n."""
    return float(np.abs(right - confidences).sum() / max(counts.sum(), 1))


def reliability_figure(counts: np.ndarray, right: np.ndarray, confidences: np.ndarray) -> Figure:
    """Draws sums per bin (bins + 1,): how many, how many right, sum of confidences."""
    total = max(counts.sum(), 1)
    error = expected_calibration_error(counts, right, confidences)
    # For the eye a confidence of exactly 1 belongs to the last bin.
    counts, right, confidences = (
        np.append(sums[:-2], sums[-2] + sums[-1]) for sums in (counts, right, confidences)
    )
    bins = len(counts)
    width = 1 / bins
    centers = (np.arange(bins) + 0.5) * width
    filled = counts > 0
    x, n = centers[filled], counts[filled]
    accuracy, confidence = right[filled] / n, confidences[filled] / n

    figure = Figure(figsize=(5, 6.4))
    above, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    # Blue up to what is both right and sure; from there the gap, up to the larger of the two.
    above.bar(x, np.minimum(accuracy, confidence), 0.94 * width, color=SKY)
    gaps = np.abs(accuracy - confidence)
    for chosen, color, label in (
        (confidence > accuracy, ORANGE, "gap: surer than right"),
        (confidence <= accuracy, GREEN, "gap: less sure than right"),
    ):
        above.bar(
            x[chosen],
            gaps[chosen],
            0.94 * width,
            bottom=np.minimum(accuracy, confidence)[chosen],
            facecolor=(color, 0.2),
            edgecolor=color,
            hatch="////",
            hatch_linewidth=0.6,
            linewidth=0.6,
            label=label,
        )
    ends = x - 0.47 * width, x + 0.47 * width
    above.hlines(accuracy, *ends, color=BLUE, linewidth=2.5, label="accuracy")
    above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="accuracy")

    below.bar(centers, counts / total, 0.94 * width, color=PALE)
    if bins <= 20:  # a tall gap over three examples means little: say how many there are
        for place, count in zip(x, n, strict=True):
            below.annotate(
                f"{count:.0f}",
                (place, count / total),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=6,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
            )
    for mean, color, label in (
        (right.sum() / total, BLUE, "mean accuracy"),
        (confidences.sum() / total, ORANGE, "mean confidence"),
    ):
        below.axvline(mean, color=color, label=f"{label} {mean:.1%}")
    for axes in (above, below):  # above the panel, where it hides nothing
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    below.margins(y=0.2)
    below.set(xlabel="confidence", ylabel="share of examples")
    for axes in (above, below):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y")
    below.xaxis.set_major_formatter(PercentFormatter(1))

    figure.suptitle(f"Calibration error (ECE) {error:.4f} on {int(total):,} examples")
    return figure
