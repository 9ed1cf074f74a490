"""Check raw samples (image paths, images, texts) and open image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer

from engine.errors import UserError


def check_samples(
    samples: Any, preprocessing: dict[str, Any] | None, tokenizer: Tokenizer | None
) -> list[Any]:
    """Return raw samples as a list of texts and pairs, or of images.

    Args:
        samples: One sample or several: texts or pairs of texts where there is a tokenizer; else
            paths of image files, PIL images, or tensors (C, height, width).
        preprocessing: How the data module prepared its images.
        tokenizer: How the data module prepared its texts.

    Raises:
        UserError: If a sample cannot be read or is of the wrong kind.
    """
    if isinstance(samples, str | Path | Image.Image) or getattr(samples, "ndim", None) == 3:
        samples = [samples]
    elif not (isinstance(samples, Sequence) or hasattr(samples, "ndim")):
        raise UserError(f"expected one sample or a sequence, got {type(samples).__name__}.")
    if not len(samples):
        raise UserError("there is nothing to predict: pass at least one sample.")
    if tokenizer is not None:
        if wrong := [sample for sample in samples if not _is_text(sample)]:
            raise UserError(
                f"this model takes texts (str), got {type(wrong[0]).__name__}; pass pairs of texts "
                "as a list of tuples."
            )
        return [text if isinstance(text, str) else tuple(text) for text in samples]
    if preprocessing is None:
        raise UserError(
            "this model was trained without `preprocessing` and `tokenizer`, so it takes neither "
            "raw images nor raw texts; call it with prepared inputs instead."
        )
    return [_open_image(sample) for sample in samples]


def _is_text(sample: Any) -> bool:
    pair = isinstance(sample, tuple | list) and len(sample) == 2
    return isinstance(sample, str) or (pair and all(isinstance(text, str) for text in sample))


def _open_image(sample: Any) -> Any:
    if isinstance(sample, Image.Image) or hasattr(sample, "ndim"):
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
