"""A small MLP, and random batches for it."""

import torch
from torch import nn

from modules.nets import MLP

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def random_batches(number: int, rows: int) -> Batches:
    random = torch.Generator().manual_seed(5)
    images = torch.randn(number, rows, 1, 4, 4, generator=random)
    return list(zip(images, torch.randint(10, (number, rows), generator=random), strict=True))


def small_mlp() -> nn.Module:
    torch.manual_seed(7)
    return MLP(image_size=4, hidden_sizes=[6])
