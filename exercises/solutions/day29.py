"""Solutions of day 29."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def accumulate_gradients(
    net: nn.Module, batches: list[tuple[Tensor, Tensor]], ignore_index: int = -100
) -> float:
    number = sum(int((targets != ignore_index).sum()) for _, targets in batches)
    total = 0.0
    for inputs, targets in batches:
        logits = net(inputs).flatten(0, 1)
        loss = F.cross_entropy(
            logits, targets.flatten(), ignore_index=ignore_index, reduction="sum"
        )
        (loss / number).backward()
        total += loss.item()
    return total / number


@torch.no_grad()
def update_ema(average: nn.Module, net: nn.Module, decay: float) -> None:
    for mean, parameter in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(parameter, 1 - decay)
    for copy, buffer in zip(average.buffers(), net.buffers(), strict=True):
        copy.copy_(buffer)


class Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            output = ctx.function(x)
        output.backward(grad)
        return None, x.grad


def checkpoint(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not x.requires_grad:  # otherwise the output would have no graph
        x = x.detach().requires_grad_()
    return Checkpoint.apply(function, x)
