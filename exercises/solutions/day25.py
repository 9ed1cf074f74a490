"""Solutions of day 25."""

import math

import torch
from torch import Tensor, nn


def random_windows(
    tokens: Tensor, batch_size: int, context: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)
    windows = tokens[starts + torch.arange(context + 1)]
    return windows[:, :-1], windows[:, 1:]


def warmup_cosine(step: int, warmup: int, total_steps: int, max_lr: float, min_lr: float) -> float:
    if step < warmup:
        return max_lr * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / (total_steps - warmup))
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def decay_groups(net: nn.Module, weight_decay: float) -> list[dict]:
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    others = [parameter for parameter in trained if parameter.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def training_flops(parameters: int, layers: int, width: int, context: int, tokens: int) -> int:
    return (6 * parameters + 12 * layers * width * context) * tokens
