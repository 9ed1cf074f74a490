"""Day 5: the whole of training on one screen, with NumPy and nothing else.

    python -m modules.scratch.train_numpy            # scikit-learn's 8x8 digits, two seconds
    python -m modules.scratch.train_numpy --mnist    # MNIST from $DATA_DIR (or data/), 20 seconds

An MLP of hand-written layers and SGD with momentum: forward, loss, backward, step.
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

Data = tuple[Array, np.ndarray]  # pictures (N, D) in 0…1, labels (N,)


def digits() -> tuple[Data, Data]:
    """1,437 digits to train on, 360 to test on."""
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pictures, labels = (pictures[order] / 16).astype(np.float32), labels[order]
    return (pictures[360:], labels[360:]), (pictures[:360], labels[:360])


def mnist(folder: Path) -> tuple[Data, Data]:
    """60,000 digits to train on, 10,000 to test on."""

    def read(name: str, header: int) -> np.ndarray:
        path = folder / "MNIST" / "raw" / f"{name}-ubyte.gz"
        if not path.exists():
            raise SystemExit(
                f"{path} is not there. Set DATA_DIR to the folder that holds MNIST/raw, or let "
                "`python train.py fit --config configs/mnist/mlp.yaml` download it; without "
                "--mnist no download is needed."
            )
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)

    def split(name: str) -> Data:
        pictures = read(f"{name}-images-idx3", 16).reshape(-1, 784).astype(np.float32) / 255
        return pictures, read(f"{name}-labels-idx1", 8).astype(np.int64)

    return split("train"), split("t10k")


def train(
    data: tuple[Data, Data], hidden: int, epochs: int, lr: float, seed: int, say: Callable
) -> float:
    """Train a net with one hidden layer; returns its test accuracy."""
    (pictures, labels), (test_pictures, test_labels) = data
    rng = np.random.default_rng(seed)
    mean, std = pictures.mean(), pictures.std()
    net = Network(mlp_layers([pictures.shape[1], hidden, 10], rng)).astype(np.float32)
    loss, momentum, batch_size, accuracy = SoftmaxCrossEntropy(), 0.9, 64, 0.0
    velocities = [np.zeros_like(w) for w in net.parameters()]
    steps = epochs * (len(labels) // batch_size)
    step = 0
    for epoch in range(1, epochs + 1):
        order, losses = rng.permutation(len(labels)), []
        for rows in order[: len(order) // batch_size * batch_size].reshape(-1, batch_size):
            logits = net.forward((pictures[rows] - mean) / std, training=True)
            losses.append(loss.forward(logits, labels[rows]))
            net.backward(loss.backward())
            rate = lr * (1 - step / steps)  # down to zero in a straight line
            for w, g, v in zip(net.parameters(), net.gradients(), velocities, strict=True):
                v *= momentum  # v ← μ v + g;  w ← w - lr · v
                v += g
                w -= rate * v
            step += 1
        answers = net.forward((test_pictures - mean) / std).argmax(axis=1)
        accuracy = float((answers == test_labels).mean())
        say(f"epoch {epoch}: train loss {np.mean(losses):.4f}, test accuracy {accuracy:.4f}")
    return accuracy


def main(args: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--mnist", action="store_true", help="train on MNIST, not on the digits")
    parser.add_argument("--hidden", type=int, default=128, help="units of the hidden layer")
    parser.add_argument("--epochs", type=int, default=15, help="rounds through the training set")
    parser.add_argument("--lr", type=float, default=0.05, help="learning rate at the start")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    told = parser.parse_args(args)
    data = mnist(Path(os.environ.get("DATA_DIR") or "data")) if told.mnist else digits()
    train(data, told.hidden, told.epochs, told.lr, told.seed, Console(highlight=False).print)


if __name__ == "__main__":
    main()
