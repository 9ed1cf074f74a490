"""Convert images to the normalized tensors that a network was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from preprocessing.image_arrays import convert_image


def prepare_image(image: Image.Image | Tensor, preprocessing: dict[str, Any]) -> Tensor:
    """Convert, resize and crop one image as the DataModule did, without normalizing it.

    Args:
        image: PIL image, or tensor (C, height, width), uint8 in 0…255 or float in 0…1.
        preprocessing: See `images_to_inputs`.

    Returns:
        Tensor (in_channels, image_size, image_size), uint8 for PIL images.
    """
    channels, size = preprocessing["in_channels"], preprocessing["image_size"]
    if isinstance(image, Image.Image):
        image = convert_image(image, channels)
    prepared = F.to_image(image)  # (C, height, width)
    if prepared.shape[0] not in (1, 3):
        raise ValueError(f"an image tensor must have 1 or 3 channels, got {prepared.shape[0]}")
    if prepared.shape[0] != channels:
        to_channels = F.rgb_to_grayscale if channels == 1 else F.grayscale_to_rgb
        prepared = to_channels(prepared)
    if "shorter_side" in preprocessing:  # keep the aspect ratio and crop the center
        prepared = F.resize(prepared, [preprocessing["shorter_side"]], antialias=True)
        prepared = F.center_crop(prepared, [size, size])
    elif prepared.shape[-2:] != (size, size):
        prepared = F.resize(prepared, [size, size], antialias=True)
    return torch.as_tensor(prepared)


def images_to_inputs(
    images: Sequence[str | Path | Image.Image | Tensor] | Tensor, preprocessing: dict[str, Any]
) -> Tensor:
    """Convert colors, resize, scale to [0, 1] and normalize as the DataModule did.

    Args:
        images: File paths, PIL images, or tensors (C, height, width), uint8 in 0…255 or float in
            0…1.
        preprocessing: An image DataModule's `preprocessing`: in_channels, image_size, mean, std;
            with shorter_side, images are resized to that and center-cropped, else squeezed.

    Returns:
        Float tensor (B, in_channels, image_size, image_size).
    """
    prepared = []
    for image in images:
        if isinstance(image, str | Path):
            image = Image.open(image)
        prepared.append(prepare_image(image, preprocessing))
    if len({tensor.dtype for tensor in prepared}) > 1:  # each has its own scale
        prepared = [F.to_dtype(tensor, torch.float32, scale=True) for tensor in prepared]
    inputs = F.to_dtype(torch.stack(prepared), torch.float32, scale=True)  # (B, C, size, size)
    return F.normalize(inputs, preprocessing["mean"], preprocessing["std"])
