"""Solutions of day 33."""

import torch
from torch import Tensor, nn


class LoRALinear(nn.Module):
    def __init__(
        self, base: nn.Linear, rank: int = 4, alpha: float = 8.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(base.weight.new_empty(rank, base.in_features).normal_(std=1 / rank))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (self.dropout(x) @ self.A.T @ self.B.T)


def merge(weight: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    return weight + alpha / len(A) * (B @ A)


def trainable_fraction(net: nn.Module, rank: int) -> float:
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    trained = sum(rank * (layer.in_features + layer.out_features) for layer in layers)
    return trained / (trained + sum(p.numel() for p in net.parameters()))


def best_low_rank_update(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    U, S, V = torch.linalg.svd(update, full_matrices=False)
    return V[:rank], U[:, :rank] * S[:rank]
