"""What is trained and how: all that the memory of a device depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

STRATEGIES = ("single", "ddp", "fsdp", "zero2", "zero3", "tensor_parallel")
FLOAT, BF16 = 4, 2  # bytes
BUCKET = 200_000_000  # elements that DeepSpeed reduces at once: Lightning's default
GIB = 2**30


@dataclass(frozen=True)
class Job:
    """What is to be trained, and how.

    Args:
        net: On the meta device.
        rows: Rows of a batch on one device.
        precision: Lightning's name of it.
        optimizer: Makes an optimizer of parameters; by default AdamW.
        strategy: One of STRATEGIES.
        devices: How many share the work.
        accumulate: Batches a step: gradients stay from one to the next.
        device: `cpu` or `cuda`: they keep different things for the backward pass.
        inputs: Two rows of the net's inputs, only for a net that is no GPT.
    """

    net: nn.Module
    rows: int
    precision: str = "32-true"
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    strategy: str = "single"
    devices: int = 1
    accumulate: int = 1
    device: str = "cpu"
    inputs: Any = None

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())

    @property
    def weight_bytes(self) -> int:
        return BF16 if self.precision == "bf16-true" else FLOAT

    @property
    def compute_bytes(self) -> int:
        """Of what enters and leaves a matrix product."""
        return BF16 if self.precision.startswith("bf16") else FLOAT

    @property
    def tensor_parallel(self) -> int:
        return self.devices if self.strategy == "tensor_parallel" else 1


Parts = dict[str, float]  # bytes on one device, by name
