"""Day 6: transfer learning: a linear probe, frozen layers and learning rates by depth."""

import numpy as np
import torch
from torch import nn


def linear_probe(
    features: np.ndarray, targets: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and bias of the best linear head on fixed features.

    Minimize Σ_n |x_n W + b - y_n|² + ridge · |W|². The bias is not penalized: derive that b is
    mean(y) - mean(x) W, and solve for W with centered data.

    Args:
        features: Outputs of a frozen network, (N, D); D may exceed N.
        targets: One-hot classes, (N, C).
        ridge: Penalty, > 0.

    Returns:
        Weight (D, C) and bias (C,).

    Source: Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, section 3.4.1.
    """
    raise NotImplementedError


def train_only(net: nn.Module, prefixes: list[str]) -> None:
    """Make exactly the parameters trainable whose names begin with one of the prefixes.

    A prefix is the name of a submodule: "layer1" contains "layer1.weight", but not
    "layer10.weight". Parameters that were frozen before and match become trainable again.

    Args:
        net: The network; changed in place.
        prefixes: Names of submodules.

    Raises:
        ValueError: If a prefix matches no parameter.

    Source: Howard & Ruder 2018 (arXiv:1801.06146), gradual unfreezing.
    """
    raise NotImplementedError


def freeze_batch_norm(net: nn.Module) -> None:
    """Put all batch-norm layers whose parameters are frozen into evaluation mode.

    A frozen batch norm in training mode still changes its running statistics. Call it after
    net.train(); other layers keep their mode.

    Args:
        net: The network; changed in place.
    """
    raise NotImplementedError


def layer_groups(net: nn.Sequential, lr: float, decay: float) -> list[dict]:
    """Return an optimizer's parameter groups with smaller learning rates for earlier layers.

    The last layer that has parameters gets lr, the one before it lr · decay, and so on. Layers
    without parameters have no group and do not count.

    Args:
        net: A chain of layers.
        lr: Learning rate of the last layer.
        decay: Factor from a layer to the one before it.

    Returns:
        Groups with the keys "params" (a list) and "lr", first layer first.

    Source: Howard & Ruder 2018, discriminative fine-tuning.
    """
    raise NotImplementedError
