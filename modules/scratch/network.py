"""Networks of NumPy layers: a forward pass through all layers, and the backward pass."""

from itertools import pairwise

import numpy as np

from modules.scratch.layers import (
    Array,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)


class Network:
    """A sequence of layers.

    Args:
        layers: In order from inputs to logits.
    """

    def __init__(self, layers: list[Layer]) -> None:
        self.layers = layers

    def forward(self, x: Array, training: bool = False) -> Array:
        for layer in self.layers:
            layer.training = training
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def astype(self, dtype: type[np.floating]) -> "Network":
        """Convert all arrays, which are float64 initially, and return the network."""
        for layer in self.layers:
            for name in (*layer.parameter_names, *layer.buffer_names):
                setattr(layer, name, getattr(layer, name).astype(dtype))
        return self

    def parameters(self) -> list[Array]:
        """Return the parameters, in the order of `gradients`."""
        return [getattr(layer, name) for layer in self.layers for name in layer.parameter_names]

    def gradients(self) -> list[Array]:
        """Return ∂L/∂w of every parameter, after `backward`."""
        return [layer.gradients[name] for layer in self.layers for name in layer.parameter_names]


def mlp_layers(
    sizes: list[int],
    rng: np.random.Generator,
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> list[Layer]:
    """`Flatten`, then `Linear → BatchNorm → activation → Dropout` per hidden layer, then `Linear`.

    Args:
        sizes: Number of inputs, width of each hidden layer, number of outputs.
        rng: Draws weights and masks.
        activation: `relu` or `tanh`.
        batch_norm: Add batch norm before each activation.
        dropout: Dropout probability of hidden units, in [0, 1).
    """
    layers: list[Layer] = [Flatten()]
    for in_features, out_features in pairwise(sizes[:-1]):
        layers.append(Linear(in_features, out_features, rng))
        layers += norm_and_activation(out_features, activation, batch_norm)
        if dropout > 0:
            layers.append(Dropout(dropout, rng))
    return [*layers, Linear(sizes[-2], sizes[-1], rng)]


def cnn_layers(
    channels: list[int],
    padding: int,
    rng: np.random.Generator,
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> list[Layer]:
    """`Conv 3x3 → BatchNorm → activation` per channel count, then 2x2 max-pool, `Dropout`.

    Args:
        channels: Channels of the image and of each convolution's output.
        padding: Zeros added on each side of a convolution's input, in pixels.
        rng: Draws weights and masks.
        activation: `relu` or `tanh`.
        batch_norm: Add batch norm before each activation.
        dropout: Dropout probability of the features, in [0, 1).
    """
    layers: list[Layer] = []
    for in_channels, out_channels in pairwise(channels):
        layers.append(Conv2d(in_channels, out_channels, 3, padding, rng))
        layers += norm_and_activation(out_channels, activation, batch_norm)
    layers.append(MaxPool2d(2))
    return [*layers, Dropout(dropout, rng)] if dropout > 0 else layers


def norm_and_activation(features: int, activation: str, batch_norm: bool) -> list[Layer]:
    """Return `(BatchNorm) → activation`."""
    if activation not in ("relu", "tanh"):
        raise ValueError(f"activation must be relu or tanh, got {activation!r}.")
    nonlinearity: Layer = ReLU() if activation == "relu" else Tanh()
    return [BatchNorm(features), nonlinearity] if batch_norm else [nonlinearity]
