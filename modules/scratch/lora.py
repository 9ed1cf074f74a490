"""LoRA on one screen: a trained update of low rank beside a frozen linear layer.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models". Fine-tuning changes a weight
matrix W (out, in) by ΔW, which has as many numbers as W. The paper finds that a ΔW of low rank r is
enough, and writes it as a product of two thin matrices:

    y = W x + b + scale · B A x,    A (r, in),  B (out, r),  scale = alpha / r

A starts at random and B at zero, so training starts from the pretrained network. With in = out =
1024 and r = 16, A and B have 3 % of the numbers of W; the optimizer keeps its state for these only.
After training, W + scale · B A is an ordinary weight again: inference takes no longer than before.

The product takes the same from peft (modules/adapters); a test compares the two.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Module):
    """A linear layer with a low-rank update.

    Args:
        layer: The pretrained layer, which is frozen.
        rank: Rank r of the update.
        alpha: The update is scaled by alpha / rank, so that another rank needs no other learning
            rate.
        dropout: Dropout probability of the input of A.
    """

    def __init__(
        self, layer: nn.Linear, rank: int = 16, alpha: float = 32, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear initializes its weight

    def forward(self, x: Tensor) -> Tensor:
        # First A, then B: B A itself would be as large as W.
        update = F.linear(F.linear(self.dropout(x), self.A), self.B)  # (…, in) → (…, r) → (…, out)
        return self.layer(x) + self.scale * update  # (…, out)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Return the layer with W + scale · B A as its weight."""
        self.layer.weight += self.scale * self.B @ self.A
        return self.layer


def add_lora(net: nn.Module, names: list[str], rank: int = 16, alpha: float = 32) -> nn.Module:
    """Freeze a network and replace the linear layers with these names, in place."""
    net.requires_grad_(False)
    for name in names:
        parent, _, child = name.rpartition(".")
        layer: nn.Linear = net.get_submodule(name)  # type: ignore[assignment]
        setattr(net.get_submodule(parent), child, LoRALinear(layer, rank, alpha))
    return net


def merge_lora(net: nn.Module) -> nn.Module:
    """Replace every LoRALinear of a network by its merged layer, in place."""
    for name, module in list(net.named_modules()):
        if isinstance(module, LoRALinear):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, module.merge())
    return net
