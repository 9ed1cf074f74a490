"""Normalised batches made visible again, with the mean and deviation that the DataModule knows."""

from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor


def is_picture_batch(inputs: Any) -> bool:
    """Whether `inputs` is a batch of grey or RGB pictures, (B, 1 or 3, H, W)."""
    return (
        isinstance(inputs, Tensor)
        and inputs.is_floating_point()
        and inputs.ndim == 4
        and inputs.size(1) in (1, 3)
    )


def denormalise(pictures: Tensor, trainer: Trainer) -> np.ndarray:
    """Turns network inputs (B, C, H, W) into pictures (B, H, W, C) with values in 0 … 1.

    Undoes `(x - mean) / std` with the `mean` and `std` of `trainer.datamodule`. Where it has none,
    each picture is stretched from its darkest to its brightest value.
    """
    datamodule = getattr(trainer, "datamodule", None)
    return made_visible(
        pictures, getattr(datamodule, "mean", None), getattr(datamodule, "std", None)
    )


def made_visible(pictures: Tensor, mean: Any, std: Any) -> np.ndarray:
    """`denormalise` with numbers that are known, or None, and no trainer."""
    pictures = pictures.detach().float().cpu()
    if mean is None or std is None:
        darkest = pictures.amin(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        brightest = pictures.amax(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        pictures = (pictures - darkest) / (brightest - darkest).clamp_min(1e-8)
    else:
        pictures = pictures * _per_channel(std) + _per_channel(mean)
    return pictures.clamp(0, 1).permute(0, 2, 3, 1).numpy()


def _per_channel(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).cpu().view(1, -1, 1, 1)  # (1, C, 1, 1)
