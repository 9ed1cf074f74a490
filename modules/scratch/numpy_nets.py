"""The NumPy network as a *net*: torch sees parameters and gradients, NumPy computes all of them.

`modules.nets.MLP` and `modules.nets.CNN` with nothing of torch between inputs and logits: their
forward is one `torch.autograd.Function` around `Network.forward` and `Network.backward`. The
parameters are torch's, so every optimizer, checkpoint and callback works; the arrays that NumPy
computes with are views of the same memory. Weights have the names that they have in MLP and CNN, so
either net can load the other's.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modules.scratch.layers import Array, Dropout, Layer
from modules.scratch.network import Network, cnn_layers, mlp_layers


class NumpyLayer(nn.Module):
    """Holds what a NumPy layer learns as parameters, and what it remembers as buffers."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        for name in layer.learns:
            self.register_parameter(name, nn.Parameter(torch.tensor(getattr(layer, name)).float()))
        for name in layer.remembers:
            self.register_buffer(name, torch.tensor(getattr(layer, name)).float())

    def at_work(self) -> Layer:
        """The layer for one pass, on the parameters as they are now.

        A copy for each pass: a second forward must not overwrite what the first one keeps for its
        backward.
        """
        layer = copy.copy(self.layer)
        for name in (*layer.learns, *layer.remembers):
            setattr(layer, name, array(getattr(self, name)))
        if isinstance(layer, Dropout) and self.training:  # masks follow torch's seed
            layer.rng = fresh_rng()
        return layer

    def take_back(self, layer: Layer) -> None:
        """Keep what the layer remembers of a pass; where memory is shared, it is there already."""
        for name in layer.remembers:
            getattr(self, name).copy_(torch.from_numpy(getattr(layer, name)))

    def extra_repr(self) -> str:
        return type(self.layer).__name__


class ThroughNumpy(torch.autograd.Function):
    """Forward and backward of a NumPy network, for torch's tape."""

    @staticmethod
    def forward(
        ctx: Any, network: Network, training: bool, inputs: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.network = network
        return tensor(network.forward(array(inputs), training), like=inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_inputs = ctx.network.backward(array(gradient))
        gradients = (tensor(g, like=gradient) for g in ctx.network.gradients())
        return None, None, tensor(d_inputs, like=gradient), *gradients


class NumpyNet(nn.Module):
    """What both nets share: all their layers, one after the other, through NumPy."""

    def layers_in_order(self) -> Iterator[NumpyLayer]:
        return (module for module in self.modules() if isinstance(module, NumpyLayer))

    @torch.compiler.disable  # there is nothing of torch in it to be compiled
    def forward(self, inputs: Tensor) -> Tensor:
        """Pictures (B, C, height, width) to logits (B, num_classes)."""
        holders = list(self.layers_in_order())
        network = Network([holder.at_work() for holder in holders])
        parameters = [p for holder in holders for p in holder.parameters()]
        logits: Tensor = ThroughNumpy.apply(network, self.training, inputs, *parameters)
        if self.training:
            for holder, layer in zip(holders, network.layers, strict=True):
                holder.take_back(layer)
        return logits


class NumpyMLP(NumpyNet):
    """`modules.nets.MLP`, hand-written.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels.
        hidden_sizes: Width of each hidden layer; an empty list gives softmax regression.
        dropout: Probability in [0, 1) of zeroing a hidden unit during training.
        activation: `relu` or `tanh`.
        batch_norm: Normalise before each activation.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        activation: str = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.hidden_sizes = list(hidden_sizes)
        self.dropout = dropout
        self.activation = activation
        self.batch_norm = batch_norm

        sizes = [in_channels * image_size**2, *hidden_sizes, num_classes]
        self.layers = holders(mlp_layers(sizes, fresh_rng(), activation, batch_norm, dropout))


class NumpyCNN(NumpyNet):
    """`modules.nets.CNN`, hand-written.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of a picture, 1 for grey and 3 for RGB.
        image_size: Height and width of a picture in pixels.
        channels: Output channels of each 3x3 convolution.
        hidden_size: Width of the hidden layer between the features and the logits.
        padding: Zeros added around each picture before a convolution.
        conv_dropout: Probability in [0, 1) of zeroing a feature after pooling.
        dropout: Probability in [0, 1) of zeroing a unit of the hidden layer.
        activation: `relu` or `tanh`.
        batch_norm: Normalise before each activation.

    Raises:
        ValueError: If the picture is too small for the convolutions and the pooling.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        channels: Sequence[int] = (8, 16),
        hidden_size: int = 64,
        padding: int = 1,
        conv_dropout: float = 0.0,
        dropout: float = 0.0,
        activation: str = "relu",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.image_size = image_size
        self.channels = list(channels)
        self.hidden_size = hidden_size
        self.padding = padding
        self.conv_dropout = conv_dropout
        self.dropout = dropout
        self.activation = activation
        self.batch_norm = batch_norm

        feature_size = (image_size - len(channels) * (2 - 2 * padding)) // 2
        if feature_size < 1:
            raise ValueError(
                f"NumpyCNN: pictures of {image_size}x{image_size} pixels are too small for "
                f"{len(channels)} convolutions with padding: {padding} and a 2x2 max-pool; "
                "use padding: 1 or fewer channels."
            )
        rng, kind = fresh_rng(), (activation, batch_norm)
        features = cnn_layers([in_channels, *channels], padding, rng, *kind, conv_dropout)
        sizes = [channels[-1] * feature_size**2, hidden_size, num_classes]
        self.features = holders(features)
        self.head = holders(mlp_layers(sizes, rng, *kind, dropout))


def holders(layers: list[Layer]) -> nn.ModuleList:
    return nn.ModuleList(NumpyLayer(layer) for layer in layers)


def fresh_rng() -> np.random.Generator:
    """NumPy's random numbers, by torch's seed."""
    return np.random.default_rng(int(torch.randint(2**62, ())))


def array(tensor: Tensor) -> Array:
    """A view of the tensor's memory; a copy from another device, or of 16 bits unknown to NumPy."""
    cpu = tensor.detach().cpu()
    return (cpu.float() if cpu.dtype in (torch.bfloat16, torch.float16) else cpu).numpy()


def tensor(values: Array, like: Tensor) -> Tensor:
    """The array as a tensor of the same kind and on the same device as another."""
    return torch.from_numpy(values).to(like)
