"""Convert raw samples (image paths, images, texts) to the inputs of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from engine.errors import UserError
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
    if isinstance(samples, str | Path | Image.Image) or (
        isinstance(samples, Tensor) and samples.ndim == 3
    ):
        samples = [samples]
    elif not isinstance(samples, Sequence | Tensor):
        raise UserError(f"expected one sample or a sequence, got {type(samples).__name__}.")
    if not len(samples):
        raise UserError("there is nothing to predict: pass at least one sample.")
    if tokenizer is not None:
        if wrong := [sample for sample in samples if not _is_text(sample)]:
            raise UserError(
                f"this model takes texts (str), got {type(wrong[0]).__name__}; pass pairs of texts "
                "as a list of tuples."
            )
        texts: Any = samples
        pairs_as_tuples = [text if isinstance(text, str) else tuple(text) for text in texts]
        inputs = texts_to_inputs(pairs_as_tuples, tokenizer)
        return {name: tensor.to(device) for name, tensor in inputs.items()}
    if preprocessing is None:
        raise UserError(
            "this model was trained without `preprocessing` and `tokenizer`, so it takes neither "
            "raw images nor raw texts; call it with prepared inputs instead."
        )
    images = [_open_image(sample) for sample in samples]
    return images_to_inputs(images, preprocessing).to(device)


def _is_text(sample: Any) -> bool:
    pair = isinstance(sample, tuple | list) and len(sample) == 2
    return isinstance(sample, str) or (pair and all(isinstance(text, str) for text in sample))


def _open_image(sample: RawSample) -> Image.Image | Tensor:
    if isinstance(sample, Image.Image | Tensor):
        return sample
    if not isinstance(sample, str | Path):
        raise UserError(
            "this model takes images (file paths, PIL images or tensors (C, height, width)), got "
            f"{type(sample).__name__}."
        )
    try:
        with Image.open(sample) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise UserError(f"image file not found: {sample}") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {sample} as an image: {error}") from error
