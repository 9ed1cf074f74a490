"""Calibration and selective prediction of a binary classifier.

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification": a classifier
that may abstain on its least confident predictions trades coverage for risk.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plotting.reliability_diagram import expected_calibration_error, sums_by_confidence

BINS = 15  # as in modules.Classifier
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)


class Reliability(NamedTuple):
    """How far the confidences of a classifier can be trusted."""

    accuracy: float
    ece: float
    risk: dict[float, float]  # coverage → fraction of errors among the most confident predictions
    area: float  # under the curve of risk over coverage; 0 is best


def reliability(probabilities: Sequence[float], labels: Sequence[bool]) -> Reliability:
    """Return calibration and selective risk of probabilities (N,) of the positive class.

    Args:
        probabilities: In [0, 1].
        labels: Whether the positive class is true.
    """
    logits, targets = two_class_logits(probabilities), torch.tensor(labels).long()
    confidences, predicted = logits.softmax(dim=1).max(dim=1)  # (N,)
    wrong = (predicted != targets).double()
    order = confidences.argsort(descending=True, stable=True)
    counts = torch.arange(1, len(wrong) + 1)
    risks = wrong[order].cumsum(dim=0) / counts  # of the n most confident
    at_coverage = {c: risks[max(1, round(c * len(wrong))) - 1].item() for c in COVERAGES}
    error = expected_calibration_error(*sums_by_confidence(logits, targets, BINS).numpy())
    return Reliability(1 - wrong.mean().item(), error, at_coverage, risks.mean().item())


def two_class_logits(probabilities: Sequence[float]) -> Tensor:
    """Return logits (N, 2) whose softmax is (1 - p, p)."""
    positive = torch.tensor(probabilities, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    return torch.stack([(1 - positive).log(), positive.log()], dim=1)


def cohens_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the agreement of two labelings beyond chance, at most 1 (Cohen 1960)."""
    total = len(first)
    agreement = sum(a == b for a, b in zip(first, second, strict=True)) / total
    p, q = sum(first) / total, sum(second) / total
    chance = p * q + (1 - p) * (1 - q)
    return (agreement - chance) / (1 - chance) if chance < 1 else 1.0
