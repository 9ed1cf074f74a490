"""Day 31: inside a model folder: safetensors, names of weights, padding and pooling."""

import numpy as np
import torch
from torch import Tensor


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file.

    The first 8 bytes are the length n of the header, little-endian; the next n bytes are JSON: name
    to {"dtype": "F32", "shape": […], "data_offsets": [begin, end]}. Offsets count from the end of
    the header. "__metadata__" is not a tensor. Types here are F32, F16 and I64.

    Args:
        data: Content of the file.

    Raises:
        ValueError: If the file is shorter than its header says.

    Source: github.com/huggingface/safetensors, README, "Format".
    """
    raise NotImplementedError


def rename_weights(weights: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Return weights under new names.

    In each name every occurrence of the first text of a rule is replaced by the second, rule after
    rule.

    Args:
        weights: Name to weight.
        rules: Texts and their replacements, in this order.

    Raises:
        ValueError: If two weights would have the same name; the message contains it.
    """
    raise NotImplementedError


def position_ids(mask: Tensor) -> Tensor:
    """Return the positions of tokens in a batch that is padded on the left.

    The first word has position 0; padding has position 0, too (its outputs are not used).

    Args:
        mask: 1 for words, 0 for padding, integers (B, T).

    Returns:
        Integers (B, T).
    """
    raise NotImplementedError


def mean_pooling(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return sentence vectors: the mean over words, scaled to length 1.

    Args:
        hidden: Outputs of an encoder, (B, T, D).
        mask: 1 for words, 0 for padding, (B, T); each row has a word.

    Returns:
        Tensor of shape (B, D).

    Source: Reimers & Gurevych 2019 (arXiv:1908.10084).
    """
    raise NotImplementedError
