"""Statistics of predictions: bootstrap intervals, calibration, McNemar's test.

Every function takes logits (N, K) and labels (N,).
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, bootstrap
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

BINS = 15  # bins of the calibration error, as in modules.Classifier


class Interval(NamedTuple):
    """A value with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean squared distance to the one-hot label, in [0, 2] (Brier 1950)."""
    truth = F.one_hot(labels, logits.shape[1])  # (N, K)
    return (logits.softmax(dim=1) - truth).square().sum(dim=1).mean()


def metrics_of(classes: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return metrics as functions of logits and labels, by name."""
    plain: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    return {
        "accuracy": lambda x, y: multiclass_accuracy(x, y, average="micro", **plain),
        "loss": F.cross_entropy,
        "f1": lambda x, y: multiclass_f1_score(x, y, **plain),
        "precision": lambda x, y: multiclass_precision(x, y, **plain),
        "recall": lambda x, y: multiclass_recall(x, y, **plain),
        "auroc": lambda x, y: multiclass_auroc(x, y, **plain),
        "average_precision": lambda x, y: multiclass_average_precision(x, y, **plain),
        "ece": lambda x, y: multiclass_calibration_error(x, y, n_bins=BINS, **plain),
        "brier": brier,
    }


def with_intervals(
    logits: Tensor, labels: Tensor, resamples: int, confidence: float, seed: int = 0
) -> dict[str, Interval]:
    """Return every metric with its bootstrap percentile interval (Efron 1979).

    The interval covers the choice of test examples, not the seed of training.

    Args:
        logits: (N, K).
        labels: (N,).
        resamples: Number of bootstrap resamples.
        confidence: Level of the interval, in (0, 1).
        seed: Seed of the resamples.
    """
    metrics = metrics_of(logits.shape[1])

    def statistic(rows: np.ndarray) -> np.ndarray:
        drawn = torch.from_numpy(rows)
        x, y = logits[drawn], labels[drawn]
        return np.array([metric(x, y).item() for metric in metrics.values()])

    everything = np.arange(len(labels))
    with warnings.catch_warnings(action="ignore"):  # resamples without a rare class
        values = statistic(everything)
        found = bootstrap(
            (everything,),
            statistic,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            vectorized=False,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    triples = zip(values.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return {name: Interval(*triple) for name, triple in zip(metrics, triples, strict=True)}


def per_class_metrics(logits: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Return precision, recall, F1 and number of examples of each class."""
    plain: dict[str, Any] = {
        "num_classes": logits.shape[1],
        "average": "none",
        "validate_args": False,
    }
    support = torch.bincount(labels, minlength=logits.shape[1])
    columns = {
        "precision": multiclass_precision(logits, labels, **plain),
        "recall": multiclass_recall(logits, labels, **plain),
        "f1": multiclass_f1_score(logits, labels, **plain),
    }
    return [
        {name: values[k].item() for name, values in columns.items()} | {"support": int(support[k])}
        for k in range(logits.shape[1])
    ]


def confusion(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Return the confusion matrix (K, K): rows are true, columns predicted classes."""
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(dim=1)  # (N,)
    return torch.bincount(cells, minlength=classes**2).view(classes, classes).numpy()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature that minimizes the cross-entropy (Guo et al. 2017, section 4.2).

    Dividing logits by it changes confidences, not predictions. Fit it on examples that are used
    neither for training nor for testing.
    """
    double = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(double / math.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


class McNemar(NamedTuple):
    """Result of McNemar's test."""

    only_first: int  # examples that only the first classifies correctly
    only_second: int
    p_value: float


def mcnemar(first: Tensor, second: Tensor, labels: Tensor) -> McNemar:
    """Return McNemar's exact test (McNemar 1947).

    Under the null hypothesis an example that only one model classifies correctly is equally likely
    to be either's. The test uses only these examples, so it can find a difference where confidence
    intervals overlap.

    Args:
        first: Logits (N, K) of one model.
        second: Logits (N, K) of the other.
        labels: (N,).
    """
    correct = [logits.argmax(dim=1) == labels for logits in (first, second)]
    ours, theirs = int((correct[0] & ~correct[1]).sum()), int((~correct[0] & correct[1]).sum())
    p_value = binomtest(ours, ours + theirs, 0.5).pvalue if ours + theirs else 1.0
    return McNemar(ours, theirs, float(p_value))
