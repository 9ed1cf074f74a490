"""Is a backward pass right? Hold it against differences of the forward pass.

    python -m modules.scratch.gradcheck

A derivative is what the loss does when one number moves a little. Central differences,

    ∂L/∂w ≈ (L(w + h) - L(w - h)) / 2h        error of the order of h²

need two forward passes for each number and no thought at all, so they can't share a mistake with a
backward pass. For each layer L = Σ r · y with random r, and the relative error of a gradient g
against its differences d is ‖g - d‖ / (‖g‖ + ‖d‖). In float64 it stays below 1e-7; the command
exits with code 1 where it does not.
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

STEP = 1e-5  # h: smaller ones lose digits to rounding, larger ones to the third derivative
LIMIT = 1e-7
FLOOR = 1e-2  # a gradient of zero has no relative error: below this length it counts as this long

Errors = dict[str, float]  # "inputs" and each parameter → relative error


def differences(loss: Callable[[], float], array: Array) -> Array:
    """∂loss/∂array by central differences; the array is moved in place and put back."""
    gradient = np.empty_like(array)
    for place in np.ndindex(array.shape):
        value = array[place]
        array[place] = value + STEP
        above = loss()
        array[place] = value - STEP
        below = loss()
        array[place] = value
        gradient[place] = (above - below) / (2 * STEP)
    return gradient


def relative_error(gradient: Array, expected: Array) -> float:
    """‖g - d‖ / (‖g‖ + ‖d‖): 0 where they agree, 1 where they have nothing in common."""
    if gradient.shape != expected.shape:
        return float("inf")
    length = float(np.linalg.norm(gradient) + np.linalg.norm(expected))
    return float(np.linalg.norm(gradient - expected)) / max(length, FLOOR)


def check_layers(layers: list[Layer], inputs: Array, training: bool = True) -> Errors:
    """Relative errors of a layer, or of several one after the other.

    Args:
        layers: In float64; their arrays come back unchanged.
        inputs: A batch, in float64.
        training: The mode to check.
    """
    network = Network(layers)
    wiggled = {
        name if len(layers) == 1 else f"{index}.{name}": (layer, name)
        for index, layer in enumerate(layers)
        for name in layer.learns
    }
    remembered = [(layer, name) for layer in layers for name in layer.remembers]
    before = [getattr(layer, name).copy() for layer, name in remembered]

    def forward() -> Array:
        for layer in layers:
            if isinstance(layer, Dropout):
                layer.rng = np.random.default_rng(0)  # the same mask every time
        return network.forward(inputs, training)

    outputs = forward()
    r = np.random.default_rng(1).standard_normal(outputs.shape)
    d_inputs = network.backward(r)
    found = {"inputs": (d_inputs, inputs)} | {
        key: (layer.gradients[name], getattr(layer, name)) for key, (layer, name) in wiggled.items()
    }
    errors = {
        key: relative_error(gradient, differences(lambda: float((r * forward()).sum()), array))
        for key, (gradient, array) in found.items()
    }
    for (layer, name), value in zip(remembered, before, strict=True):
        getattr(layer, name)[...] = value
    return errors


def check_loss(loss: SoftmaxCrossEntropy, logits: Array, targets: np.ndarray) -> Errors:
    """Relative error of the loss's gradient."""
    loss.forward(logits, targets)
    gradient = loss.backward()
    return {
        "logits": relative_error(
            gradient, differences(lambda: loss.forward(logits, targets), logits)
        )
    }


def cases() -> Iterator[tuple[str, Callable[[], Errors]]]:
    """Name and check of every layer, of the loss, and of two whole networks."""
    rng = np.random.default_rng(0)

    def rows() -> Array:
        return rng.standard_normal((5, 6))

    def pictures() -> Array:
        return rng.standard_normal((3, 2, 7, 6))

    def evaluated(layer: BatchNorm) -> BatchNorm:
        layer.running_mean[:] = rng.standard_normal(len(layer.running_mean))
        layer.running_var[:] = rng.uniform(0.5, 2, len(layer.running_var))
        return scaled(layer)

    def scaled(layer: BatchNorm) -> BatchNorm:
        layer.weight[:] = rng.standard_normal(len(layer.weight))
        layer.bias[:] = rng.standard_normal(len(layer.bias))
        return layer

    yield "Flatten", lambda: check_layers([Flatten()], pictures())
    yield "Linear", lambda: check_layers([Linear(6, 4, rng)], rows())
    yield "ReLU", lambda: check_layers([ReLU()], rows())
    yield "Tanh", lambda: check_layers([Tanh()], rows())
    yield "BatchNorm, rows", lambda: check_layers([scaled(BatchNorm(6))], rows())
    yield "BatchNorm, pictures", lambda: check_layers([scaled(BatchNorm(2))], pictures())
    yield (
        "BatchNorm, evaluation",
        lambda: check_layers([evaluated(BatchNorm(2))], pictures(), training=False),
    )
    yield "Dropout", lambda: check_layers([Dropout(0.4, rng)], rows())
    yield "Conv2d", lambda: check_layers([Conv2d(2, 3, 3, 0, rng)], pictures())
    yield "Conv2d, padding", lambda: check_layers([Conv2d(2, 3, 3, 1, rng)], pictures())
    yield "MaxPool2d", lambda: check_layers([MaxPool2d(2)], pictures())
    yield (
        "SoftmaxCrossEntropy",
        lambda: check_loss(SoftmaxCrossEntropy(), rows(), rng.integers(6, size=5)),
    )
    yield (
        "an MLP",
        lambda: check_layers(mlp_layers([6, 8, 5, 3], rng, "tanh", True, 0.3), rows()),
    )
    yield (
        "a CNN",
        lambda: check_layers(
            [*cnn_layers([2, 3, 4], 1, rng, "relu", True, 0.2), *mlp_layers([36, 5, 3], rng)],
            pictures(),
        ),
    )


def main() -> None:
    """Check all, show a table.

    Raises:
        SystemExit: With code 1 if an error is not below the limit.
    """
    table = Table("layer", "gradient of", "relative error", "", box=None, header_style="bold")
    wrong = 0
    for name, check in cases():
        for gradient, error in check().items():
            good = error < LIMIT  # NaN is not
            wrong += not good
            verdict = "[green]right[/]" if good else "[bold red]WRONG[/]"
            table.add_row(name, gradient, f"{error:.1e}", verdict)
            name = ""
    console = Console()
    console.print(table)
    console.print(f"{wrong or 'none'} of {table.row_count} gradients at or above {LIMIT:g}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
