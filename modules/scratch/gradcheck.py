"""Check hand-written backward passes against finite differences of the forward pass.

    python -m modules.scratch.gradcheck

Central differences approximate a derivative independently of the backward pass:

    ∂L/∂w ≈ (L(w + h) - L(w - h)) / 2h        with an error of order h²

They need two forward passes per number. For each layer L = Σ r · y with random r; the relative
error of a gradient g against the differences d is ‖g - d‖ / (‖g‖ + ‖d‖). In float64 it must be
below 1e-7; otherwise the command exits with code 1.
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

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
    SoftmaxCrossEntropy,
    Tanh,
)
from modules.scratch.network import Network, cnn_layers, mlp_layers

STEP = 1e-5  # h: rounding dominates for smaller, the third derivative for larger values
LIMIT = 1e-7
MIN_NORM = 1e-2  # lower bound of the denominator, since a zero gradient has no relative error

Errors = dict[str, float]  # "inputs" and each parameter → relative error


def differences(loss: Callable[[], float], array: Array) -> Array:
    """Return ∂loss/∂array by central differences; the array is modified and restored in place."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + STEP
        above = loss()
        array[index] = value - STEP
        below = loss()
        array[index] = value
        gradient[index] = (above - below) / (2 * STEP)
    return gradient


def relative_error(gradient: Array, expected: Array) -> float:
    """Return ‖g - d‖ / (‖g‖ + ‖d‖), between 0 (equal) and 1."""
    if gradient.shape != expected.shape:
        return float("inf")
    norm = float(np.linalg.norm(gradient) + np.linalg.norm(expected))
    return float(np.linalg.norm(gradient - expected)) / max(norm, MIN_NORM)


def check_layers(layers: list[Layer], inputs: Array, training: bool = True) -> Errors:
    """Return the relative errors of a layer, or of a sequence of layers.

    Args:
        layers: In float64; their arrays are restored.
        inputs: A batch, in float64.
        training: The mode to check.
    """
    network = Network(layers)
    checked = {
        name if len(layers) == 1 else f"{index}.{name}": (layer, name)
        for index, layer in enumerate(layers)
        for name in layer.parameter_names
    }
    buffers = [(layer, name) for layer in layers for name in layer.buffer_names]
    before = [getattr(layer, name).copy() for layer, name in buffers]

    def forward() -> Array:
        for layer in layers:
            if isinstance(layer, Dropout):
                layer.rng = np.random.default_rng(0)  # the same mask in every pass
        return network.forward(inputs, training)

    outputs = forward()
    r = np.random.default_rng(1).standard_normal(outputs.shape)
    d_inputs = network.backward(r)
    found = {"inputs": (d_inputs, inputs)} | {
        key: (layer.gradients[name], getattr(layer, name)) for key, (layer, name) in checked.items()
    }
    errors = {
        key: relative_error(gradient, differences(lambda: float((r * forward()).sum()), array))
        for key, (gradient, array) in found.items()
    }
    for (layer, name), value in zip(buffers, before, strict=True):
        getattr(layer, name)[...] = value
    return errors


def check_loss(loss: SoftmaxCrossEntropy, logits: Array, targets: np.ndarray) -> Errors:
    """Return the relative error of the gradient of the loss."""
    loss.forward(logits, targets)
    gradient = loss.backward()
    return {
        "logits": relative_error(
            gradient, differences(lambda: loss.forward(logits, targets), logits)
        )
    }


def cases() -> Iterator[tuple[str, Callable[[], Errors]]]:
    """Yield name and check of every layer, of the loss, and of two networks."""
    rng = np.random.default_rng(0)

    def rows() -> Array:
        return rng.standard_normal((5, 6))

    def images() -> Array:
        return rng.standard_normal((3, 2, 7, 6))

    def with_statistics(layer: BatchNorm) -> BatchNorm:
        layer.running_mean[:] = rng.standard_normal(len(layer.running_mean))
        layer.running_var[:] = rng.uniform(0.5, 2, len(layer.running_var))
        return with_weights(layer)

    def with_weights(layer: BatchNorm) -> BatchNorm:
        layer.weight[:] = rng.standard_normal(len(layer.weight))
        layer.bias[:] = rng.standard_normal(len(layer.bias))
        return layer

    yield "Flatten", lambda: check_layers([Flatten()], images())
    yield "Linear", lambda: check_layers([Linear(6, 4, rng)], rows())
    yield "ReLU", lambda: check_layers([ReLU()], rows())
    yield "Tanh", lambda: check_layers([Tanh()], rows())
    yield "BatchNorm, rows", lambda: check_layers([with_weights(BatchNorm(6))], rows())
    yield "BatchNorm, images", lambda: check_layers([with_weights(BatchNorm(2))], images())
    yield (
        "BatchNorm, evaluation",
        lambda: check_layers([with_statistics(BatchNorm(2))], images(), training=False),
    )
    yield "Dropout", lambda: check_layers([Dropout(0.4, rng)], rows())
    yield "Conv2d", lambda: check_layers([Conv2d(2, 3, 3, 0, rng)], images())
    yield "Conv2d, padding", lambda: check_layers([Conv2d(2, 3, 3, 1, rng)], images())
    yield "MaxPool2d", lambda: check_layers([MaxPool2d(2)], images())
    yield (
        "SoftmaxCrossEntropy",
        lambda: check_loss(SoftmaxCrossEntropy(), rows(), rng.integers(6, size=5)),
    )
    yield (
        "MLP",
        lambda: check_layers(mlp_layers([6, 8, 5, 3], rng, "tanh", True, 0.3), rows()),
    )
    yield (
        "CNN",
        lambda: check_layers(
            [*cnn_layers([2, 3, 4], 1, rng, "relu", True, 0.2), *mlp_layers([36, 5, 3], rng)],
            images(),
        ),
    )


def main() -> None:
    """Check all layers and print a table.

    Raises:
        SystemExit: With code 0, or 1 if an error is not below the limit.
    """
    table = Table("layer", "gradient of", "relative error", "", box=None, header_style="bold")
    failed = 0
    for name, check in cases():
        for gradient, error in check().items():
            passed = error < LIMIT  # False for NaN
            failed += not passed
            verdict = "[green]passed[/]" if passed else "[bold red]FAILED[/]"
            table.add_row(name, gradient, f"{error:.1e}", verdict)
            name = ""
    console = Console()
    console.print(table)
    checked = table.row_count
    console.print(f"{checked - failed} of {checked} gradients: relative error below {LIMIT:g}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
