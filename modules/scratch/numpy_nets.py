"""NumPy networks as torch modules: torch holds parameters and gradients, NumPy computes them.

`modules.nets.MLP` and `modules.nets.CNN` without torch operations between inputs and logits: their
forward is one `torch.autograd.Function` around `Network.forward` and `Network.backward`. The
parameters are torch's, so that optimizers, checkpoints and callbacks work; the NumPy arrays are
views of the same memory. The state_dict keys are those of MLP and CNN, so weights can be exchanged.
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
    """A NumPy layer with its arrays registered as parameters and buffers."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        for name in layer.parameter_names:
            self.register_parameter(name, nn.Parameter(torch.tensor(getattr(layer, name)).float()))
        for name in layer.buffer_names:
            self.register_buffer(name, torch.tensor(getattr(layer, name)).float())

    def bind(self) -> Layer:
        """Return a copy of the layer for one pass, with the current parameters.

        Each pass has its own copy, since a second forward must not overwrite what the first one
        stores for its backward.
        """
        layer = copy.copy(self.layer)
        for name in (*layer.parameter_names, *layer.buffer_names):
            setattr(layer, name, array(getattr(self, name)))
        if isinstance(layer, Dropout) and self.training:  # masks depend on torch's seed
            layer.rng = new_rng()
        return layer

    def update_buffers(self, layer: Layer) -> None:
        """Copy the buffers of a layer after a pass, in case they do not share memory."""
        for name in layer.buffer_names:
            getattr(self, name).copy_(torch.from_numpy(getattr(layer, name)))

    def extra_repr(self) -> str:
        return type(self.layer).__name__


class NumpyFunction(torch.autograd.Function):
    """Forward and backward of a NumPy network for autograd."""

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
    """Base of both networks: run all NumPy layers in sequence."""

    def numpy_layers(self) -> Iterator[NumpyLayer]:
        return (module for module in self.modules() if isinstance(module, NumpyLayer))

    @torch.compiler.disable  # it has no torch operations to compile
    def forward(self, inputs: Tensor) -> Tensor:
        modules = list(self.numpy_layers())
        network = Network([module.bind() for module in modules])
        parameters = [p for module in modules for p in module.parameters()]
        logits: Tensor = NumpyFunction.apply(network, self.training, inputs, *parameters)
        if self.training:
            for module, layer in zip(modules, network.layers, strict=True):
                module.update_buffers(layer)
        return logits  # (B, num_classes)


class NumpyMLP(NumpyNet):
    """`modules.nets.MLP` in NumPy.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels.
        hidden_sizes: Width of each hidden layer; an empty list gives softmax regression.
        dropout: Dropout probability of hidden units, in [0, 1).
        activation: `relu` or `tanh`.
        batch_norm: Add batch norm before each activation.
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
        self.layers = numpy_modules(mlp_layers(sizes, new_rng(), activation, batch_norm, dropout))


class NumpyCNN(NumpyNet):
    """`modules.nets.CNN` in NumPy.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of an image, 1 for grayscale and 3 for RGB.
        image_size: Height and width of an image in pixels.
        channels: Output channels of each 3x3 convolution.
        hidden_size: Width of the hidden layer between the features and the logits.
        padding: Zeros added on each side before a convolution, in pixels.
        conv_dropout: Dropout probability of the features after pooling, in [0, 1).
        dropout: Dropout probability of the hidden layer, in [0, 1).
        activation: `relu` or `tanh`.
        batch_norm: Add batch norm before each activation.

    Raises:
        ValueError: If the image is too small for the convolutions and the pooling.
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
                f"NumpyCNN: images of {image_size}x{image_size} pixels are too small for "
                f"{len(channels)} convolutions with padding: {padding} and a 2x2 max-pool; "
                "use padding: 1 or fewer channels."
            )
        rng, kind = new_rng(), (activation, batch_norm)
        features = cnn_layers([in_channels, *channels], padding, rng, *kind, conv_dropout)
        sizes = [channels[-1] * feature_size**2, hidden_size, num_classes]
        self.features = numpy_modules(features)
        self.head = numpy_modules(mlp_layers(sizes, rng, *kind, dropout))


def numpy_modules(layers: list[Layer]) -> nn.ModuleList:
    return nn.ModuleList(NumpyLayer(layer) for layer in layers)


def new_rng() -> np.random.Generator:
    """Return a NumPy generator seeded by torch."""
    return np.random.default_rng(int(torch.randint(2**62, ())))


def array(tensor: Tensor) -> Array:
    """Return a view of the tensor, or a copy from another device or of a 16-bit dtype."""
    cpu = tensor.detach().cpu()
    return (cpu.float() if cpu.dtype in (torch.bfloat16, torch.float16) else cpu).numpy()


def tensor(values: Array, like: Tensor) -> Tensor:
    """Return the array as a tensor with the dtype and device of another."""
    return torch.from_numpy(values).to(like)
