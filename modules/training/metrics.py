"""Metrics of the tasks: sums over batches and processes, kept in float32."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryF1Score


class Float32Metric(Metric):
    """Accumulate sums in float32 even if the model is converted to bfloat16, where 256 + 1 = 256.

    Args:
        *sums: Names of the sums.
    """

    def __init__(self, *sums: str) -> None:
        super().__init__()
        for name in sums:
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()
    ) -> nn.Module:
        """Apply `fn`, for example a move to another device, but keep the data type."""

        def apply(tensor: Tensor) -> Any:
            return fn(tensor).to(tensor.dtype)

        return super()._apply(apply, exclude_state)


class MeanLoss(Float32Metric):
    """Sum of losses divided by the number of samples or tokens that they are summed over."""

    loss: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__("loss", "count")

    def update(self, loss: Tensor, count: Tensor | int) -> None:
        """Add the summed loss of a batch and the number of its samples or tokens."""
        self.loss += loss.detach()
        self.count += count

    def compute(self) -> Tensor:
        return self.loss / self.count


class Perplexity(MeanLoss):
    """exp(loss), for a loss in nats per token."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class BitsPerCharacter(Float32Metric):
    """Loss in bits divided by the number of characters of the text."""

    loss: Tensor
    characters: Tensor

    def __init__(self) -> None:
        super().__init__("loss", "characters")

    def update(self, loss: Tensor, characters: Tensor) -> None:
        """Add the summed loss of a batch in nats and the number of its characters."""
        self.loss += loss.detach()
        self.characters += characters

    def compute(self) -> Tensor:
        return self.loss / math.log(2) / self.characters


class TokenAccuracy(Float32Metric):
    """Fraction of tokens that are predicted correctly."""

    correct: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__("correct", "count")

    def update(self, correct: Tensor, count: Tensor | int) -> None:
        """Add the number of correct predictions of a batch and the number of its tokens."""
        self.correct += correct
        self.count += count

    def compute(self) -> Tensor:
        return self.correct / self.count


class PositiveF1(BinaryF1Score):
    """F1 of the second of two classes, from logits (B, 2): the metric of GLUE's MRPC."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of logits (B, 2) and class indices (B,)."""
        super().update(preds.argmax(dim=1), target)


def stage_metrics(metrics: dict[str, Metric]) -> nn.ModuleDict:
    """Return a MetricCollection for val and one for test; results are named `<stage>/<metric>`.

    Compute groups are off: metrics whose sums are equal after the first batch may differ later.
    """
    collection = MetricCollection(dict(metrics), prefix="val/", compute_groups=False)
    return nn.ModuleDict({"val": collection, "test": collection.clone("test/")})


def log_metrics(task: L.LightningModule, stage: str) -> None:
    """Log and reset the metrics of a stage at the end of its epoch."""
    metrics: MetricCollection = task.metrics[stage]  # type: ignore[index, assignment]
    for name, value in metrics.compute().items():
        task.log(name, value, prog_bar=name == f"{stage}/loss")
    metrics.reset()
