"""Networks of hand-written layers: forward through all of them, and the chain rule back."""

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
    """Layers one after the other: forward through all of them, and the same way back.

    Args:
        layers: From the inputs to the logits.
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
        """The network in another precision: layers are made in float64."""
        for layer in self.layers:
            for name in (*layer.learns, *layer.remembers):
                setattr(layer, name, getattr(layer, name).astype(dtype))
        return self

    def parameters(self) -> list[Array]:
        """The arrays that learn, in the order of `gradients`."""
        return [getattr(layer, name) for layer in self.layers for name in layer.learns]

    def gradients(self) -> list[Array]:
        """∂L/∂w of every array that learns, after backward."""
        return [layer.gradients[name] for layer in self.layers for name in layer.learns]


def mlp_layers(
    sizes: list[int],
    rng: np.random.Generator,
    activation: str = "relu",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> list[Layer]:
    """`Flatten`, then `Linear → BatchNorm → activation → Dropout` a hidden layer, then `Linear`.

    Args:
        sizes: Inputs, the width of each hidden layer, outputs.
        rng: Draws weights and masks.
        activation: `relu` or `tanh`.
        batch_norm: Normalise before each activation.
        dropout: Probability in [0, 1) of zeroing a hidden unit during training.
    """
    layers: list[Layer] = [Flatten()]
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers.append(Linear(fan_in, fan_out, rng))
        layers += between(fan_out, activation, batch_norm)
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
    """`Conv 3x3 → BatchNorm → activation` a channel count, then a 2x2 max-pool and `Dropout`.

    Args:
        channels: Of the pictures, and of each convolution's output.
        padding: Zeros around each convolution's input, in pixels.
        rng: Draws weights and masks.
        activation: `relu` or `tanh`.
        batch_norm: Normalise before each activation.
        dropout: Probability in [0, 1) of zeroing a feature during training.
    """
    layers: list[Layer] = []
    for fan_in, fan_out in pairwise(channels):
        layers.append(Conv2d(fan_in, fan_out, 3, padding, rng))
        layers += between(fan_out, activation, batch_norm)
    layers.append(MaxPool2d(2))
    return [*layers, Dropout(dropout, rng)] if dropout > 0 else layers


def between(features: int, activation: str, batch_norm: bool) -> list[Layer]:
    """What stands between two layers with weights."""
    if activation not in ("relu", "tanh"):
        raise ValueError(f"activation must be relu or tanh, not {activation!r}.")
    nonlinear: Layer = ReLU() if activation == "relu" else Tanh()
    return [BatchNorm(features), nonlinear] if batch_norm else [nonlinear]
