"""Undo the normalization of image batches for display."""

from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor


def is_image_batch(inputs: Any) -> bool:
    """Return whether `inputs` is a float batch of grayscale or RGB images (B, 1 or 3, H, W)."""
    return (
        isinstance(inputs, Tensor)
        and inputs.is_floating_point()
        and inputs.ndim == 4
        and inputs.size(1) in (1, 3)
    )


def denormalize(images: Tensor, trainer: Trainer) -> np.ndarray:
    """Convert network inputs (B, C, H, W) to images (B, H, W, C) with values in [0, 1].

    Undo `(x - mean) / std` with the `mean` and `std` of `trainer.datamodule`. If it has none, scale
    each image from its minimum to its maximum.
    """
    datamodule = getattr(trainer, "datamodule", None)
    return to_displayable(
        images, getattr(datamodule, "mean", None), getattr(datamodule, "std", None)
    )


def to_displayable(images: Tensor, mean: Any, std: Any) -> np.ndarray:
    """Do the same for given statistics: None, or one number per channel."""
    images = images.detach().float().cpu()
    if mean is None or std is None:
        minimum = images.amin(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        maximum = images.amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        images = (images - minimum) / (maximum - minimum).clamp_min(1e-8)
    else:
        images = images * _per_channel(std) + _per_channel(mean)
    return images.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _per_channel(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).cpu().view(1, -1, 1, 1)  # (1, C, 1, 1)
