"""A sum over an evaluation's batches and processes, in float32 whatever the net computes in."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchmetrics import SumMetric


class Float32Sum(SumMetric):
    """Does not follow the net to bfloat16, where 256 + 1 is 256; and does not leave NaN out."""

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ()
    ) -> nn.Module:
        """To another device, as `fn` says, but not to another precision."""

        def stay(tensor: Tensor) -> Any:
            return fn(tensor).to(tensor.dtype)

        return super()._apply(stay, exclude_state)
