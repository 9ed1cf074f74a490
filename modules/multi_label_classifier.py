"""LightningModule for multi-label classification: any number of the classes apply to a sample."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import ClasswiseWrapper, Metric
from torchmetrics.classification import (
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelRecall,
)

from modules.classifier import Classifier
from modules.inference.raw_methods import LabelsSamples


class MultiLabelClassifier(LabelsSamples, Classifier):
    """Train a network whose `forward(inputs)` returns one logit per class, (B, num_classes).

    Targets are multi-hot floats (B, num_classes). The loss is the binary cross-entropy, averaged
    over classes and samples. Logs `<stage>/loss` and `<stage>/accuracy` (over all pairs of sample
    and class) for train, val and test; val and test add `exact_match` (all classes of a sample are
    correct), macro-averaged `f1`, `precision`, `recall`, `auroc` and the mean average precision
    `map`.

    The arguments are those of `Classifier`; `class_weights` weight the positive targets of a class,
    as `pos_weight` of BCEWithLogitsLoss does.
    """

    def loss(self, logits: Tensor, targets: Tensor, stage: str) -> Tensor:
        """Return the mean binary cross-entropy; smoothing and weights apply to training only."""
        if stage != "train":
            return F.binary_cross_entropy_with_logits(logits, targets.float())
        weights: Tensor | None = self.class_weights
        smoothed = targets.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weights)

    def make_metrics(self) -> dict[str, Metric]:
        """Return the metrics of val and test."""
        options: Any = {"num_labels": len(self.class_names), "validate_args": False}
        return {
            "accuracy": MultilabelAccuracy(average="micro", **options),
            "exact_match": MultilabelExactMatch(**options),
            "f1": MultilabelF1Score(**options),
            "precision": MultilabelPrecision(**options),
            "recall": MultilabelRecall(**options),
            "auroc": MultilabelAUROC(**options),
            "map": MultilabelAveragePrecision(**options),
        }

    def make_per_class_metrics(self) -> dict[str, Metric]:
        """Return the metrics of each class, for test."""
        options: Any = {
            "num_labels": len(self.class_names),
            "average": None,
            "validate_args": False,
        }
        metrics: dict[str, Metric] = {
            "precision": MultilabelPrecision(**options),
            "recall": MultilabelRecall(**options),
            "f1": MultilabelF1Score(**options),
        }
        return {
            f"{name}_per_class": ClasswiseWrapper(metric, self.class_names, prefix=f"{name}/")
            for name, metric in metrics.items()
        }

    def batch_accuracy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the fraction of correct decisions of a training batch."""
        return ((logits > 0) == (targets > 0.5)).float().mean()

    def logits_to_probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each class, (B, num_classes)."""
        return logits.float().sigmoid()
