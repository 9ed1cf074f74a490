"""Metrics of the tasks: sums over batches and processes, kept in float32."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection


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


def stage_metrics(
    metrics: Mapping[str, Metric], stages: Sequence[str] = ("val", "test")
) -> nn.ModuleDict:
    """Return one MetricCollection for each stage; its results are named `<stage>/<metric>`.

    Metrics with equal states share them only where torchmetrics can prove it by their class, since
    sums that are equal after the first batch may differ after the second.
    """
    return nn.ModuleDict(
        {
            stage: MetricCollection(
                {name: metric.clone() for name, metric in metrics.items()},
                prefix=f"{stage}/",
                compute_groups=False,
            )
            for stage in stages
        }
    )
