"""Day 1: a complete training loop in plain PyTorch, without Lightning's Trainer.

    python -m scripts.train_torch --epochs 15

Network, data and hyper-parameters are those of configs/mnist/mlp.yaml, and the losses equal those
of `python train.py fit --config configs/mnist/mlp.yaml` to the last digit. docs/course.md says what
each line becomes in the Trainer.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import RandomCrop

from datamodules import MNIST
from engine.errors import exit_on_user_error
from modules.nets import MLP
from modules.optim import WarmupCosine


def train(epochs: int, data_dir: str | None = None, seed: int = 0) -> dict[str, list[float]]:
    """Train the 784-128-10 MLP on MNIST and evaluate it after each epoch.

    Args:
        epochs: Passes over the 55,000 training images.
        data_dir: Folder of the data sets; by default the environment's DATA_DIR, or `data`.
        seed: Seed of the weights, the order of the data and the augmentation.

    Returns:
        Training loss of every 50th step, validation loss and accuracy of every epoch.
    """
    torch.manual_seed(seed)
    data = MNIST(batch_size=128, data_dir=data_dir, seed=seed)
    data.prepare_data()
    data.setup("fit")
    net = MLP()
    augment = RandomCrop(28, padding=1)
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    biases = [p for p in net.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.003, fused=True)
    batches = data.train_dataloader()
    order: Any = batches.sampler
    schedule = WarmupCosine(optimizer, warmup_steps=300, total_steps=epochs * len(batches))
    history: dict[str, list[float]] = {"train/loss": [], "val/loss": [], "val/accuracy": []}
    step = 0
    for epoch in range(epochs):
        net.train()
        order.set_epoch(epoch)  # another order of the images in every epoch
        for images, labels in batches:
            inputs, labels = data.on_after_batch_transfer((augment(images), labels), 0)
            loss = F.cross_entropy(net(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step % 50 == 0:
                history["train/loss"].append(loss.item())
        net.eval()
        loss_sum, correct, count = torch.tensor(0.0), 0, 0
        with torch.no_grad():
            for images, labels in data.val_dataloader():
                inputs, labels = data.on_after_batch_transfer((images, labels), 0)
                logits = net(inputs)  # (B, 10)
                loss_sum += F.cross_entropy(logits, labels) * len(labels)
                correct += int((logits.argmax(dim=1) == labels).sum())
                count += len(labels)
        history["val/loss"].append((loss_sum / count).item())
        history["val/accuracy"].append(correct / count)
        print(f"epoch {epoch}: val/loss {loss_sum / count:.4f}, val/accuracy {correct / count:.4f}")
    return history


def main(args: Sequence[str] | None = None) -> dict[str, list[float]]:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        "python -m scripts.train_torch", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--epochs", type=int, default=15, help="(default: 15)")
    parser.add_argument("--data_dir", help="folder of the data sets (default: $DATA_DIR or data)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {options.epochs}")
    with exit_on_user_error("train_torch.py"):
        return train(options.epochs, options.data_dir, options.seed)


if __name__ == "__main__":
    main()
