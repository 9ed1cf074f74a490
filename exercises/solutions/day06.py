"""Solutions of day 6."""

import numpy as np
from torch import nn


def linear_probe(
    features: np.ndarray, targets: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    x, y = features - features.mean(axis=0), targets - targets.mean(axis=0)
    weight = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return weight, targets.mean(axis=0) - features.mean(axis=0) @ weight


def train_only(net: nn.Module, prefixes: list[str]) -> None:
    unused = set(prefixes)
    for name, parameter in net.named_parameters():
        matching = [prefix for prefix in prefixes if name.startswith(prefix + ".")]
        parameter.requires_grad_(bool(matching))
        unused.difference_update(matching)
    if unused:
        raise ValueError(f"no parameters in {', '.join(sorted(unused))}")


def freeze_batch_norm(net: nn.Module) -> None:
    for module in net.modules():
        trained = any(parameter.requires_grad for parameter in module.parameters())
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and not trained:
            module.eval()


def layer_groups(net: nn.Sequential, lr: float, decay: float) -> list[dict]:
    layers = [parameters for layer in net if (parameters := list(layer.parameters()))]
    depth = len(layers) - 1
    return [
        {"params": parameters, "lr": lr * decay ** (depth - index)}
        for index, parameters in enumerate(layers)
    ]
