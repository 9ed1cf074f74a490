"""Day 29: accumulation, averaged weights and activation checkpointing."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def accumulate_gradients(
    net: nn.Module, batches: list[tuple[Tensor, Tensor]], ignore_index: int = -100
) -> float:
    """Compute the gradient of one large batch from several small ones.

    The loss is the mean cross-entropy over all targets of all batches that are not ignore_index;
    batches may have different numbers of them. Gradients are added to p.grad; the caller has reset
    them. Only one batch's graph may be alive at a time.

    Args:
        net: Returns logits (B, T, V) of inputs (B, T).
        batches: Inputs and targets, (B, T) each.
        ignore_index: Targets that do not count.

    Returns:
        The loss of the large batch.
    """
    raise NotImplementedError


def update_ema(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Update an exponential moving average of a network in place.

        average ← decay · average + (1 - decay) · net

    Buffers such as running statistics are copied.

    Args:
        average: A copy of the network.
        net: The network in training; unchanged.
        decay: Such as 0.999.

    Source: Polyak & Juditsky 1992; Tarvainen & Valpola 2017 (arXiv:1703.01780).
    """
    raise NotImplementedError


def checkpoint(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return function(x), whose intermediate results are not kept but computed again in backward.

    Write a torch.autograd.Function: forward without gradients, backward with torch.enable_grad().
    The gradients of x and of the parameters in `function` must equal those of the direct call. Do
    not use torch.utils.checkpoint.

    Args:
        function: Deterministic function of one tensor; may contain parameters.
        x: Input.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    raise NotImplementedError
