"""What the convolutional nets share: a convolution with its norm and ReLU, the way out of pictures
into one vector, and how weights begin."""

from typing import Any

import torch
from torch import Tensor, nn

from modules.nets.layers.batch_norm import BatchNorm2d
from modules.nets.layers.relu import ReLU


def conv_norm_relu(
    fan_in: int,
    fan_out: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    batch_norm: bool = True,
) -> list[nn.Module]:
    """The layers `convolution → (batch norm) → ReLU`.

    Batch norm (Ioffe & Szegedy 2015) gives each channel mean 0 and variance 1 over the batch, then
    a gain and a shift that are learned: y = γ · (x - E[x]) / sqrt(Var[x] + ε) + β. The mean takes
    any bias of the convolution away, so there is none: its gradient would be mere rounding.

    Args:
        fan_in: Channels that come in.
        fan_out: Channels that go out.
        kernel_size: Height and width of the filters, odd.
        stride: Pixels from one place of a filter to the next.
        padding: Zeros added around the picture; by default as many as keep its size at stride 1.
        batch_norm: Whether there is a batch norm.
    """
    around = kernel_size // 2 if padding is None else padding
    convolution = nn.Conv2d(fan_in, fan_out, kernel_size, stride, around, bias=not batch_norm)
    norm = [BatchNorm2d(fan_out)] if batch_norm else []
    return [convolution, *norm, ReLU(inplace=True)]  # nobody needs what came before it


class FlattenPictures(torch.autograd.Function):
    """(B, C, H, W) to (B, C·H·W), whose gradient comes back in the memory order of the pictures.

    torch's own flatten gives the gradient of channels-last pictures row by row, and where the
    orders of two operands differ, the backward passes before it are five times as slow on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, pictures: Tensor) -> Tensor:
        ctx.shape = pictures.shape
        ctx.channels_last = pictures.is_contiguous(memory_format=torch.channels_last)
        return pictures.flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].view(ctx.shape)  # (B, C, H, W)
        order = torch.channels_last if ctx.channels_last else torch.contiguous_format
        return gradient.contiguous(memory_format=order)


class Flatten(nn.Module):
    """Pictures (B, C, H, W) to vectors (B, C·H·W), as fast backward as forward."""

    def forward(self, pictures: Tensor) -> Tensor:
        vectors: Tensor = FlattenPictures.apply(pictures)
        return vectors


def init_weights_for_relu(net: nn.Module) -> None:
    """Draw the weights of a deep net so that signals neither fade nor grow from layer to layer.

    A ReLU halves the second moment, and weights of variance 2 / n make up for it (He et al. 2015,
    "Delving deep into rectifiers"). n is the number of a unit's inputs in linear layers, and of its
    outputs in convolutions, as torchvision's nets have it, which keeps the gradients level. torch's
    default of 1 / (3 n) lets a signal fade to a sixth in every layer. Biases begin at 0, and the
    last layer begins small, so that the first answer is to guess.
    """
    last = None
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            last = module
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if last is not None:
        nn.init.normal_(last.weight, std=0.01)
