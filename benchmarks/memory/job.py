"""A training job: everything that the memory of a device depends on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.activation_checkpointing import Mode

STRATEGIES = (
    *("single", "ddp", "fsdp", "fsdp_offload", "zero2", "zero2_offload", "zero3"),
    "tensor_parallel",
)
FLOAT, BF16 = 4, 2  # bytes
BUCKET = 200_000_000  # elements of a DeepSpeed reduction bucket, Lightning's default
GIB = 2**30


@dataclass(frozen=True)
class Job:
    """A training job.

    Args:
        net: Network on the meta device.
        rows: Rows of a batch per device.
        precision: Lightning's name, such as `bf16-mixed`.
        optimizer: Factory of the optimizer; AdamW by default.
        strategy: One of STRATEGIES.
        devices: Number of devices.
        accumulate: Batches per optimizer step.
        device: `cpu` or `cuda`; their kernels save different tensors.
        inputs: Two rows of inputs, for networks other than GPT.
        checkpointing: Mode of callbacks.ActivationCheckpointing, or None.
        checkpoint_every: Every n-th block is checkpointed.
        loss_chunk_size: Tokens of a chunk of the loss, or None; see modules.LanguageModel.
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
    checkpointing: Mode | None = None
    checkpoint_every: int = 1
    loss_chunk_size: int | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    @property
    def weight_bytes(self) -> int:
        """Bytes per weight."""
        return BF16 if self.precision == "bf16-true" else FLOAT

    @property
    def compute_bytes(self) -> int:
        """Bytes per element of inputs and outputs of a matrix product."""
        return BF16 if self.precision.startswith("bf16") else FLOAT

    @property
    def offload(self) -> bool:
        """Whether the optimizer runs in CPU memory."""
        return self.strategy.endswith("_offload")

    @property
    def sharding(self) -> str:
        """The strategy, whether it offloads or not."""
        return self.strategy.removesuffix("_offload")

    @property
    def tensor_parallel(self) -> int:
        """Devices that share each matrix."""
        return self.devices if self.strategy == "tensor_parallel" else 1


Parts = dict[str, float]  # bytes on one device, by name
