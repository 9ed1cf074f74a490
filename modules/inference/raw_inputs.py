"""Convert raw samples (image paths, images, texts) to the inputs of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from modules.inference.raw_samples import check_samples
from preprocessing.images import images_to_inputs
from preprocessing.texts import texts_to_inputs

RawSample = str | tuple[str, str] | Path | Image.Image | Tensor


def raw_to_inputs(
    samples: RawSample | Sequence[RawSample] | Tensor,
    preprocessing: dict[str, Any] | None,
    tokenizer: Tokenizer | None,
    device: torch.device,
) -> Any:
    """Return a batch of inputs for one raw sample or several.

    Args:
        samples: Texts or pairs of texts where there is a tokenizer; else paths of image files, PIL
            images, or tensors (C, height, width), uint8 in 0…255 or float in 0…1.
        preprocessing: How the data module prepared its images.
        tokenizer: How the data module prepared its texts.
        device: Device of the inputs.

    Raises:
        UserError: If a sample cannot be read or is of the wrong kind.
    """
    checked = check_samples(samples, preprocessing, tokenizer)
    if tokenizer is not None:
        inputs = texts_to_inputs(checked, tokenizer)
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    assert preprocessing is not None  # checked
    return images_to_inputs(checked, preprocessing).to(device)
