"""Day 33: low-rank adaptation, LoRA."""

import torch
from torch import Tensor, nn


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable update of low rank.

        y = x Wᵀ + b + (alpha / rank) · dropout(x) Aᵀ Bᵀ

    A is normal with standard deviation 1 / rank and B is zero at the start (explain why not both
    are zero). W and b are frozen and stay the parameters `base.weight` and `base.bias`; A and B are
    the parameters `A` of shape (rank, in_features) and `B` of shape (out_features, rank).

    Args:
        base: The layer to adapt.
        rank: Rank of the update.
        alpha: Scale of the update, divided by the rank.
        dropout: Dropout rate of the update's input.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1.
    """

    def __init__(
        self, base: nn.Linear, rank: int = 4, alpha: float = 8.0, dropout: float = 0.0
    ) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted outputs (..., out_features) of inputs (..., in_features)."""
        raise NotImplementedError


def merge(weight: Tensor, A: Tensor, B: Tensor, alpha: float) -> Tensor:
    """Return the weight of a single linear layer equal to the adapted one, W + (alpha / rank) B A.

    Args:
        weight: Weight of the base layer, (O, I); unchanged.
        A: First factor, (rank, I).
        B: Second factor, (O, rank).
        alpha: Scale of the update, divided by the rank.

    Source: Hu et al. 2021, section 4.1, "No additional inference latency".
    """
    raise NotImplementedError


def trainable_fraction(net: nn.Module, rank: int) -> float:
    """Return the fraction of parameters that LoRA on every linear layer of a network trains.

    The denominator counts the network's own parameters and those of LoRA.

    Args:
        net: A network; unchanged.
        rank: Rank of the updates.
    """
    raise NotImplementedError


def best_low_rank_update(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors (A, B) whose product B A is closest to a full update in Frobenius norm.

    Show that the error is the root of the sum of the squared singular values that are left out.

    Args:
        update: Difference of two weights, (O, I).
        rank: Rank of the product.

    Returns:
        A of shape (rank, I) and B of shape (O, rank).

    Source: Eckart & Young 1936.
    """
    raise NotImplementedError
