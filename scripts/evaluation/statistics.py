"""What can be said about answers once they are known: intervals, calibration, one net or another.

Everything here takes logits (N, K) and labels (N,) and knows nothing of nets, files or figures.
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

BINS = 15  # of the calibration error, as in the task


class Interval(NamedTuple):
    """A value, and where it would lie for other samples of the same kind of data."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean squared distance of the probabilities from the truth, 0 … 2 (Brier 1950)."""
    truth = F.one_hot(labels, logits.shape[1])  # (N, K)
    return (logits.softmax(dim=1) - truth).square().sum(dim=1).mean()


def metrics_of(classes: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The task's metrics and two more, as functions of logits and labels."""
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
    """Every metric with its bootstrap interval (Efron 1979, percentiles).

    The examples are drawn anew with replacement, `resamples` times. That tells how much the figures
    owe to these test examples, not how much to the seed of the training.

    Args:
        logits: (N, K).
        labels: (N,).
        resamples: How often.
        confidence: Share of the resamples inside the interval, in (0, 1).
        seed: Of the draws.
    """
    metrics = metrics_of(logits.shape[1])

    def statistic(rows: np.ndarray) -> np.ndarray:
        drawn = torch.from_numpy(rows)
        x, y = logits[drawn], labels[drawn]
        return np.array([metric(x, y).item() for metric in metrics.values()])

    everything = np.arange(len(labels))
    with warnings.catch_warnings(action="ignore"):  # of resamples that lack a rare class
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


def of_each_class(logits: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of examples of each class."""
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
    """Counts (K, K), rows the true and columns the predicted classes."""
    classes = logits.shape[1]
    cells = labels * classes + logits.argmax(dim=1)  # (N,)
    return torch.bincount(cells, minlength=classes**2).view(classes, classes).numpy()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number that logits are divided by for the least cross-entropy (Guo et al. 2017, 4.2).

    It changes how sure a net is, never what it says. To be fitted on examples that neither trained
    the net nor judge it.
    """
    double = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(double / math.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


class McNemar(NamedTuple):
    """Two nets on the same examples: where they differ, who is right?"""

    only_first: int  # examples that only the first answers rightly
    only_second: int
    p_value: float


def mcnemar(first: Tensor, second: Tensor, labels: Tensor) -> McNemar:
    """McNemar's test, exact: were both as good, each difference would be the toss of a coin.

    McNemar 1947. Two intervals may overlap and the nets differ all the same: this test looks only
    at the examples on which one is right and the other wrong.

    Args:
        first: Logits (N, K) of one net.
        second: Logits (N, K) of the other.
        labels: (N,).
    """
    right = [logits.argmax(dim=1) == labels for logits in (first, second)]
    ours, theirs = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    p_value = binomtest(ours, ours + theirs, 0.5).pvalue if ours + theirs else 1.0
    return McNemar(ours, theirs, float(p_value))
