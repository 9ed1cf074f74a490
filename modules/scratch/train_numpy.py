"""Day 5: a complete training loop in NumPy.

    python -m modules.scratch.train_numpy            # scikit-learn's 8x8 digits, two seconds
    python -m modules.scratch.train_numpy --mnist    # MNIST from $DATA_DIR (or data/), 20 seconds

An MLP of NumPy layers and SGD with momentum: forward, loss, backward, step.
"""

import argparse
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from modules.scratch.layers import Array, SoftmaxCrossEntropy
from modules.scratch.network import Network, mlp_layers

Data = tuple[Array, np.ndarray]  # images (N, D) in [0, 1], labels (N,)


def digits() -> tuple[Data, Data]:
    """Return 1,437 training and 360 test digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    return (images[360:], labels[360:]), (images[:360], labels[:360])


def mnist(folder: Path) -> tuple[Data, Data]:
    """Return 60,000 training and 10,000 test digits."""

    def read(name: str, header: int) -> np.ndarray:
        path = folder / "MNIST" / "raw" / f"{name}-ubyte.gz"
        if not path.exists():
            raise SystemExit(
                f"{path} does not exist. Set DATA_DIR to the folder with MNIST/raw, or download it "
                "with `python train.py fit --config configs/mnist/mlp.yaml`; without --mnist no "
                "download is needed."
            )
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)

    def split(name: str) -> Data:
        images = read(f"{name}-images-idx3", 16).reshape(-1, 784).astype(np.float32) / 255
        return images, read(f"{name}-labels-idx1", 8).astype(np.int64)

    return split("train"), split("t10k")


def train(
    data: tuple[Data, Data], hidden: int, epochs: int, lr: float, seed: int, log: Callable
) -> float:
    """Train a network with one hidden layer; return its test accuracy."""
    (images, labels), (test_images, test_labels) = data
    rng = np.random.default_rng(seed)
    mean, std = images.mean(), images.std()
    net = Network(mlp_layers([images.shape[1], hidden, 10], rng)).astype(np.float32)
    loss, momentum, batch_size, accuracy = SoftmaxCrossEntropy(), 0.9, 64, 0.0
    velocities = [np.zeros_like(w) for w in net.parameters()]
    steps = epochs * (len(labels) // batch_size)
    step = 0
    for epoch in range(1, epochs + 1):
        order, losses = rng.permutation(len(labels)), []
        for rows in order[: len(order) // batch_size * batch_size].reshape(-1, batch_size):
            logits = net.forward((images[rows] - mean) / std, training=True)
            losses.append(loss.forward(logits, labels[rows]))
            net.backward(loss.backward())
            step_lr = lr * (1 - step / steps)  # linear decay to zero
            for w, g, v in zip(net.parameters(), net.gradients(), velocities, strict=True):
                v *= momentum  # v ← μ v + g;  w ← w - lr · v
                v += g
                w -= step_lr * v
            step += 1
        predictions = net.forward((test_images - mean) / std).argmax(axis=1)
        accuracy = float((predictions == test_labels).mean())
        log(f"epoch {epoch}: train loss {np.mean(losses):.4f}, test accuracy {accuracy:.4f}")
    return accuracy


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--mnist", action="store_true", help="train on MNIST instead of the 8x8 digits"
    )
    parser.add_argument("--hidden", type=int, default=128, help="units of the hidden layer")
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training set")
    parser.add_argument("--lr", type=float, default=0.05, help="initial learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order")
    options = parser.parse_args(args)
    data = mnist(Path(os.environ.get("DATA_DIR") or "data")) if options.mnist else digits()
    train(
        data,
        options.hidden,
        options.epochs,
        options.lr,
        options.seed,
        Console(highlight=False).print,
    )


if __name__ == "__main__":
    main()
