"""From what a user holds (a picture file, a tensor, a text) to what a net was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def pictures_to_inputs(
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


def texts_to_inputs(texts: Sequence[str], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Cut texts into tokens and fill them up to a common length, as the DataModule did.

    Args:
        texts: Raw texts, one or more.
        tokenizer: With cutting and padding enabled, as a text DataModule's `tokenizer_json` has it.

    Returns:
        `input_ids` and `attention_mask`, both (B, T); the mask is True where there is text.
    """
    found = tokenizer.encode_batch(list(texts))
    # A text without a single token is read as one that is unknown: a mask must not be empty.
    width = max([1, *(len(encoding.ids) for encoding in found)])
    pad, unknown = (int(tokenizer.token_to_id(name) or 0) for name in ("[PAD]", "[UNK]"))
    ids = torch.full((len(found), width), pad)  # (B, T)
    mask = torch.zeros(len(found), width, dtype=torch.bool)  # (B, T)
    for row, encoding in enumerate(found):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        mask[row, : len(encoding.ids)] = torch.tensor(encoding.attention_mask, dtype=torch.bool)
    empty = ~mask.any(dim=1)  # (B,)
    ids[empty, 0] = unknown
    mask[empty, 0] = True
    return {"input_ids": ids, "attention_mask": mask}
