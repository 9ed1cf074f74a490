"""Day 25: training a GPT from scratch: batches, schedule, weight decay, compute."""

import torch
from torch import Tensor, nn


def random_windows(
    tokens: Tensor, batch_size: int, context: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return inputs and targets that begin at random positions of a text.

    The targets are the inputs shifted by one. Every position at which a full window fits, the last
    one included, is equally probable.

    Args:
        tokens: A text, (N,), N > context.
        batch_size: Number of windows B.
        context: Tokens of a window T.
        generator: For torch.randint.

    Returns:
        Inputs and targets, (B, T) each.
    """
    raise NotImplementedError


def warmup_cosine(step: int, warmup: int, total_steps: int, max_lr: float, min_lr: float) -> float:
    """Return the learning rate of GPT-3: linear warm-up, then a cosine.

        step < warmup:         max_lr · (step + 1) / warmup
        up to total_steps:     min_lr + (max_lr - min_lr) · (1 + cos(π p)) / 2
        later:                 min_lr

    p grows from 0 at step `warmup` to 1 at `total_steps`.

    Args:
        step: Step, from 0.
        warmup: Steps of the warm-up.
        total_steps: Step at which min_lr is reached.
        max_lr: Largest learning rate.
        min_lr: Smallest learning rate.

    Source: Brown et al. 2020 (arXiv:2005.14165), appendix B.
    """
    raise NotImplementedError


def decay_groups(net: nn.Module, weight_decay: float) -> list[dict]:
    """Return two parameter groups: matrices with weight decay, all other parameters without.

    A parameter decays if it has at least two dimensions; biases and norms do not. A shared
    parameter (tied embedding) is in one group once, and frozen parameters are in none.

    Args:
        net: The network.
        weight_decay: Weight decay of the first group.

    Returns:
        Groups with the keys "params" (a list) and "weight_decay".
    """
    raise NotImplementedError


def training_flops(parameters: int, layers: int, width: int, context: int, tokens: int) -> int:
    """Return the floating-point operations of training a GPT.

    Derive per token 6 N for the weights (a multiply-add is two operations; backward costs twice the
    forward pass) and 12 · layers · width · context for Q Kᵀ and weights · V over all positions.

    Args:
        parameters: Parameters N of the matrices.
        layers: Number of blocks.
        width: Width of the model.
        context: Positions of a sequence.
        tokens: Tokens of the training.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), section 2.1; Chowdhery et al. 2022, appendix B.
    """
    raise NotImplementedError
