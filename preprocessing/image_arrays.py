"""Convert images to the normalized arrays that a network was trained on, without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def convert_image(image: Image.Image, channels: int = 3) -> Image.Image:
    """Convert any image to 8-bit grayscale or RGB, upright and without transparency.

    Transparent pixels are composited on white. Of 16 bits per pixel the upper 8 are kept.

    Args:
        image: PIL image of any mode.
        channels: 1 for grayscale, 3 for RGB.

    Raises:
        ValueError: If the range of the pixel values is unknown (floats, integers above 16 bits).
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode.startswith("I"):  # I;16, I;16B and I, which holds 8, 16 or 32 bits
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() >= 2**16:
            raise ValueError("pixel values exceed 16 bits")
        if image.mode != "I" or image.format == "PNG" or pixels.max() >= 2**8:
            pixels //= 256
        image = Image.fromarray(pixels.astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    return image.convert("L" if channels == 1 else "RGB")


def images_to_arrays(
    images: Sequence[Image.Image], preprocessing: dict[str, Any]
) -> NDArray[np.float32]:
    """Convert colors, resize, scale to [0, 1] and normalize as the DataModule did.

    Pillow resizes here, torchvision in preprocessing/images.py: pixels differ by 1 of 255 at most.

    Args:
        images: PIL images of any mode and size.
        preprocessing: As for preprocessing.images.images_to_inputs.

    Returns:
        Array (B, in_channels, image_size, image_size).
    """
    prepared = [_prepare(image, preprocessing) for image in images]
    pixels = np.stack(prepared).astype(np.float32) / np.float32(255)  # (B, C, size, size)
    mean, std = (
        np.asarray(preprocessing[name], dtype=np.float32)[:, None, None] for name in ("mean", "std")
    )
    return (pixels - mean) / std


def _prepare(image: Image.Image, preprocessing: dict[str, Any]) -> NDArray[np.uint8]:
    size = preprocessing["image_size"]
    image = convert_image(image, preprocessing["in_channels"])
    if "shorter_side" in preprocessing:  # keep the aspect ratio and crop the center
        side, shortest = preprocessing["shorter_side"], min(image.size)
        width, height = (int(side * length / shortest) for length in image.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    elif image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)  # (C, size, size)
