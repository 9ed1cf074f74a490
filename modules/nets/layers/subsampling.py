"""From 2x2 pixels to one: the largest or the first, written out where compiled for a CPU.

The way back is the same: the gradient goes to one of the four.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets.layers.compiler import compiles_training_on_cpu


class MaxPool2d(nn.MaxPool2d):
    """torch's own, written out where 2x2 pixels become one and it is compiled for a CPU.

    The compiler's keeps an 8-bit number for each maximum and sorts the gradients by such numbers,
    one by one: with channels last it takes three times as long as torch without a compiler.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
        if not (channels_last_in_training(x) and self._is_the_usual()):
            pooled: Tensor = super().forward(x)
            return pooled
        y: Tensor = MaxOfFour.apply(x)
        return y

    def _is_the_usual(self) -> bool:
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return settings == (2, 2, 0, 1, False) and not self.return_indices


def channels_last_in_training(x: Tensor) -> bool:
    training = compiles_training_on_cpu(x) and x.dim() == 4
    return training and x.is_contiguous(memory_format=torch.channels_last)


class MaxOfFour(torch.autograd.Function):
    """The maximum of each 2x2 pixels; of equal ones the first has the gradient, row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2), rounded down."""
        ctx.size = x.shape[2:]
        h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = x.permute(0, 2, 3, 1)  # (B, H, W, C), as they are in memory
        a, b, c, d = (rows[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1))
        ab, cd = torch.maximum(a, b), torch.maximum(c, d)  # (B, H / 2, W / 2, C)
        first, second = torch.where(a >= b, 0.0, 1.0), torch.where(c >= d, 2.0, 3.0)
        # Not as whole numbers: the compiler is slow with small ones.
        ctx.save_for_backward(torch.where(ab >= cd, first, second).to(x.dtype))
        return torch.maximum(ab, cd).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient of y to that of x."""
        (which,) = ctx.saved_tensors  # (B, H / 2, W / 2, C)
        return spread(gradients[0], which, ctx.size)


def spread(g: Tensor, which: Tensor, size: Sequence[int]) -> Tensor:
    """Each number becomes 2x2 pixels: itself in one of them and 0 in the others.

    Args:
        g: (B, C, H', W').
        which: Of the four, counted row by row; (B, H', W', C) or anything that can be broadcast.
        size: Height and width of what comes out, where pixels may be missing or 0 at the end.
    """
    rows = g.permute(0, 2, 3, 1)  # (B, H', W', C)
    four = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[:, None, :, None]  # (2, 1, 2, 1)
    chosen = which[:, :, None, :, None] == four  # (B, H', 2, W', 2, C)
    x = torch.where(chosen, rows[:, :, None, :, None], 0)  # (B, H', 2, W', 2, C)
    x = x.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)  # (B, C, 2 H', 2 W')
    end = size[1] - x.shape[3], size[0] - x.shape[2]
    return x if end == (0, 0) else F.pad(x, (0, end[0], 0, end[1]))  # (B, C, H, W)


def every_other(x: Tensor, new_channels: int) -> Tensor:
    """The first of each 2x2 pixels, and zeros as new channels after its own.

    (B, C, H, W) to (B, C + new, H / 2, W / 2), rounded up.
    """
    if channels_last_in_training(x):
        y: Tensor = EveryOther.apply(x, new_channels)
        return y
    # Pooling of single pixels: a slice would do, but its gradient loses the order in memory.
    kept = F.avg_pool2d(x, kernel_size=1, stride=2)  # (B, C, H / 2, W / 2)
    return F.pad(kept, (0, 0, 0, 0, 0, new_channels))  # (B, C + new, H / 2, W / 2)


class EveryOther(torch.autograd.Function):
    """See `every_other`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, new_channels: int) -> Tensor:
        """(B, C, H, W) to (B, C + new, H / 2, W / 2), rounded up."""
        ctx.channels, *ctx.size = x.shape[1:]
        kept = x.permute(0, 2, 3, 1)[:, ::2, ::2]  # (B, H / 2, W / 2, C)
        return F.pad(kept, (0, new_channels)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of y to that of x."""
        g = gradients[0][:, : ctx.channels]  # (B, C, H / 2, W / 2)
        return spread(g, torch.zeros(1, 1, 1, 1, dtype=g.dtype), ctx.size), None
