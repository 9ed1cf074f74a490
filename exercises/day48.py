"""Day 48: capstone, implementation: tests that find the usual errors of a network."""

import torch
from torch import Tensor, nn


def depends_on_the_future(net: nn.Module, tokens: Tensor, vocab_size: int) -> bool:
    """Return whether an output of a language model depends on a later token.

    Change tokens and compare the outputs before them; check every position. The network is
    evaluated without dropout, and is in its former mode afterwards.

    Args:
        net: Returns logits (B, T, V) of tokens (B, T).
        tokens: Tokens, (B, T); unchanged.
        vocab_size: Number of tokens, at least 2.

    Source: Karpathy 2019, A recipe for training neural networks.
    """
    raise NotImplementedError


def mixes_samples(net: nn.Module, inputs: Tensor) -> bool:
    """Return whether the output of a sample depends on other samples of the batch.

    Use gradients: those of the outputs of sample i with respect to the inputs of the others must be
    0. The network keeps its mode: in training mode batch norm mixes samples, and this is reported.

    Args:
        net: Returns outputs (B, …) of inputs (B, …).
        inputs: Floating-point inputs, B >= 2; unchanged.
    """
    raise NotImplementedError


def untrained_parameters(net: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of trainable parameters that a loss does not train, in the network's order.

    Their gradient is missing, or 0 everywhere. The gradients in p.grad are not changed.

    Args:
        net: The network.
        loss: Scalar that depends on the network.
    """
    raise NotImplementedError


def steps_to_overfit(
    net: nn.Module, inputs: Tensor, labels: Tensor, lr: float, max_steps: int, target: float = 0.01
) -> int | None:
    """Return after how many steps of Adam the loss of one batch is below a target.

    A network that cannot learn one batch by heart has an error. The loss is the cross-entropy
    before each step; 0 if it is below the target at once.

    Args:
        net: Returns scores (B, C) of inputs; changed in place.
        inputs: Inputs (B, …).
        labels: Classes, (B,).
        lr: Learning rate.
        max_steps: Most steps.
        target: Loss to reach.

    Returns:
        The number of steps, or None if the target is not reached.
    """
    raise NotImplementedError
