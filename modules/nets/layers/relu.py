"""ReLU that loses nothing where a net is compiled for a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.compiler import compiles_training_on_cpu


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), torch's own but where it is compiled to train on a CPU.

    For the way back the compiler keeps a boolean of every unit whose output nobody else keeps. On a
    CPU it writes and reads booleans slowly: that takes several times as long as all else that it
    does to the unit. Written out, the output itself is kept. One thing differs: an infinite
    gradient of a unit that is off becomes NaN instead of 0.
    """
    if compiles_training_on_cpu(x):
        y: Tensor = Rectify.apply(x)
        return y
    return F.relu(x, inplace)


class ReLU(nn.ReLU):
    """See `relu`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return relu(x, self.inplace)


class Rectify(torch.autograd.Function):
    """y = max(x, 0); ∂x = sign(y) g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Any shape to the same."""
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of y to that of x."""
        (y,) = ctx.saved_tensors
        return gradients[0] * y.sign()  # asking whether y > 0 would be a boolean to keep
