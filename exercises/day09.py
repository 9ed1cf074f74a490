"""Day 9: deep networks: initialization, residual blocks, costs, and folding batch norms."""

import torch
from torch import Tensor, nn


def he_std(fan_in: int, negative_slope: float = 0.0) -> float:
    """Return the standard deviation of weights that keeps the variance through a (leaky) ReLU.

    Derive: Var[y] = fan_in · Var[w] · E[x²], and E[relu(y)²] = (1 + a²) / 2 · Var[y] for symmetric
    y and slope a.

    Args:
        fan_in: Number of inputs of an output; for a convolution channels times kernel area.
        negative_slope: The slope a of a leaky ReLU; 0 for a ReLU.

    Source: He et al. 2015 (arXiv:1502.01852), equations 10 and 15.
    """
    raise NotImplementedError


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut.

        y = relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))

    conv1 has the stride; both are padded and have no bias. The shortcut is the identity if stride
    is 1 and the channels are equal, else a 1x1 convolution with the stride, without bias, and a
    batch norm. Use the attribute names conv1, norm1, conv2, norm2, shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the block.

    Source: He et al. 2016 (arXiv:1512.03385), figure 2 and section 3.3, option B.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride) of inputs (B, in_channels, H, W)."""
        raise NotImplementedError


def convolution_costs(
    in_channels: int, out_channels: int, kernel: int, size: int, groups: int = 1
) -> tuple[int, int]:
    """Return parameters and multiply-adds of a convolution without bias.

    Compare with them VGG's three 3x3 convolutions and one 7x7, and a depthwise separable one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Height and width of the kernel.
        size: Height and width of the output.
        groups: Each group of output channels sees in_channels / groups inputs.

    Source: Simonyan & Zisserman 2015 (arXiv:1409.1556), section 2.3.
    """
    raise NotImplementedError


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one convolution equal to a convolution and a batch norm.

    The batch norm is in evaluation mode, so it is an affine map of each channel.

    Args:
        weight: Weight of the convolution, (O, I, K, K).
        bias: Its bias, (O,), or None.
        norm: The batch norm after it.

    Returns:
        New weight (O, I, K, K) and bias (O,).
    """
    raise NotImplementedError
