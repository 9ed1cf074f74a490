"""Reliability diagram and expected calibration error of a classifier.

Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from engine.run.figures import BLUE, GREEN, INK, ORANGE, PALE, SKY


def sums_by_confidence(logits: Tensor, targets: Tensor, bins: int) -> Tensor:
    """Bin predictions by confidence; sum their number, correct ones and confidences per bin.

    As in torchmetrics a confidence of exactly 1 has its own bin, so that the ECE is the same.

    Args:
        logits: (B, K).
        targets: Class indices (B,).
        bins: Number of bins of equal width in [0, 1].

    Returns:
        (3, bins + 1).
    """
    confidences, predicted = logits.float().softmax(dim=-1).max(dim=-1)  # (B,)
    correct = (predicted == targets).float()
    edges = torch.linspace(0, 1, bins + 1, device=confidences.device)
    index = torch.bucketize(confidences, edges, right=True) - 1  # (B,)
    values = torch.stack([torch.ones_like(correct), correct, confidences])  # (3, B)
    sums = torch.zeros(3, bins + 1, device=confidences.device)
    return sums.scatter_add_(1, index.expand(3, -1), values)


def expected_calibration_error(
    counts: np.ndarray, correct: np.ndarray, confidences: np.ndarray
) -> float:
    r"""ECE = Σ_b n_b / n · |accuracy_b − confidence_b| = Σ_b |correct_b − confidences_b| / n."""
    return float(np.abs(correct - confidences).sum() / max(counts.sum(), 1))


def reliability_figure(counts: np.ndarray, correct: np.ndarray, confidences: np.ndarray) -> Figure:
    """Draw accuracy against confidence, and a histogram of confidences.

    Args:
        counts: Number of predictions per bin, (bins + 1,).
        correct: Number of correct predictions per bin.
        confidences: Sum of the confidences per bin.
    """
    total = max(counts.sum(), 1)
    error = expected_calibration_error(counts, correct, confidences)
    # The figure shows a confidence of exactly 1 in the last bin.
    counts, correct, confidences = (
        np.append(sums[:-2], sums[-2] + sums[-1]) for sums in (counts, correct, confidences)
    )
    bins = len(counts)
    width = 1 / bins
    centers = (np.arange(bins) + 0.5) * width
    filled = counts > 0
    x, n = centers[filled], counts[filled]
    accuracy, confidence = correct[filled] / n, confidences[filled] / n

    figure = Figure(figsize=(5, 6.4))
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    # Blue up to the smaller of accuracy and confidence, from there to the larger the gap.
    bottom = np.minimum(accuracy, confidence)
    upper.bar(x, bottom, 0.94 * width, color=SKY)
    gaps = np.abs(accuracy - confidence)
    for chosen, color, label in (
        (confidence > accuracy, ORANGE, "overconfident"),
        (confidence <= accuracy, GREEN, "underconfident"),
    ):
        upper.bar(
            x[chosen],
            gaps[chosen],
            0.94 * width,
            bottom=bottom[chosen],
            facecolor=(color, 0.2),
            edgecolor=color,
            hatch="////",
            hatch_linewidth=0.6,
            linewidth=0.6,
            label=label,
        )
    ends = x - 0.47 * width, x + 0.47 * width
    upper.hlines(accuracy, *ends, color=BLUE, linewidth=2.5, label="accuracy")
    dashes = {"linewidth": 1, "linestyle": (0, (4, 3))}
    upper.plot([0, 1], [0, 1], color=INK, label="perfect calibration", **dashes)
    upper.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="accuracy")

    lower.bar(centers, counts / total, 0.94 * width, color=PALE)
    if bins <= 20:  # a large gap over few samples means little
        for center, count in zip(x, n, strict=True):
            lower.annotate(
                f"{count:.0f}",
                (center, count / total),
                (0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=6,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
            )
    for mean, color, label in (
        (correct.sum() / total, BLUE, "mean accuracy"),
        (confidences.sum() / total, ORANGE, "mean confidence"),
    ):
        lower.axvline(mean, color=color, label=f"{label} {mean:.1%}")
    lower.margins(y=0.2)
    lower.set(xlabel="confidence", ylabel="fraction of samples")
    for axes in (upper, lower):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)  # above the panel
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y")
    lower.xaxis.set_major_formatter(PercentFormatter(1))

    figure.suptitle(f"Expected calibration error (ECE) {error:.4f}, {int(total):,} samples")
    return figure
