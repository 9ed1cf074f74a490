"""Convert images to the normalized tensors that a network was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def images_to_inputs(
    pictures: Sequence[Image.Image | Tensor] | Tensor, preprocessing: dict[str, Any]
) -> Tensor:
    """Convert colours, resize, scale to [0, 1] and normalise as the DataModule did.

    Args:
        pictures: PIL images, or tensors (C, height, width), uint8 in 0…255 or float in 0…1.
        preprocessing: A picture DataModule's `preprocessing`: in_channels, image_size, mean, std;
            and shorter_side where a picture is scaled to that and cut, instead of squeezed.

    Returns:
        Float tensor (B, in_channels, image_size, image_size).
    """
    channels, size = preprocessing["in_channels"], preprocessing["image_size"]
    prepared = []
    for picture in pictures:
        if isinstance(picture, Image.Image):  # palettes and transparency are no plain channels
            if picture.mode.startswith("I"):  # 16 bits a pixel: the upper 8, not what is below 256
                picture = Image.fromarray((np.asarray(picture) // 256).clip(0, 255).astype("uint8"))
            picture = ImageOps.exif_transpose(picture)  # upright
            picture = picture.convert("L" if channels == 1 else "RGB")
        image = F.to_image(picture)  # (C, height, width)
        if image.shape[0] != channels:
            image = F.rgb_to_grayscale(image, 1) if channels == 1 else F.grayscale_to_rgb(image)
        if "shorter_side" in preprocessing:  # photographs keep their proportions and lose edges
            image = F.resize(image, [preprocessing["shorter_side"]], antialias=True)
            image = F.center_crop(image, [size, size])
        elif image.shape[-2:] != (size, size):
            image = F.resize(image, [size, size], antialias=True)
        prepared.append(F.to_dtype(image, torch.float32, scale=True))
    inputs = torch.stack([torch.as_tensor(image) for image in prepared])  # (B, C, size, size)
    return F.normalize(inputs, preprocessing["mean"], preprocessing["std"])
