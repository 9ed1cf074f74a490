"""Convert raw texts to the padded token batches that a network was trained on."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from preprocessing.special_tokens import PAD, UNK, find_special_token, special_token_id

if TYPE_CHECKING:  # onnxruntime runs models without torch
    from torch import Tensor

Arrays = dict[str, NDArray[np.int64]]
WORD = re.compile(r"\w+|[^\w\s]")


def with_truncation_and_padding(tokenizer: Tokenizer, context: int) -> str:
    """Return the tokenizer as JSON; its `encode_batch` then gives what the model was trained on."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.enable_truncation(context)
    pad = find_special_token(complete, PAD) or PAD
    complete.enable_padding(pad_id=special_token_id(complete, PAD), pad_token=pad)
    return complete.to_str()


def to_tensors(arrays: Arrays) -> "dict[str, Tensor]":
    """Return arrays of tokens as tensors, with a boolean mask."""
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["attention_mask"] = tensors["attention_mask"].bool()
    return tensors


def texts_to_inputs(
    texts: Sequence[str | tuple[str, str]], tokenizer: Tokenizer
) -> "dict[str, Tensor]":
    """Return tensors for texts or pairs of texts, see `texts_to_arrays`; the mask is boolean."""
    return to_tensors(texts_to_arrays(texts, tokenizer))


def texts_to_arrays(texts: Sequence[str | tuple[str, str]], tokenizer: Tokenizer) -> Arrays:
    """Tokenize texts or pairs of texts, truncate and pad them, as the DataModule did.

    Args:
        texts: Raw texts or pairs, one or more.
        tokenizer: With truncation and padding enabled, as in a text DataModule's `tokenizer_json`.

    Returns:
        `input_ids` and `attention_mask`, both (B, T); the mask is 1 at tokens. Pairs also have
        `token_type_ids` (B, T): 0 in the first text, 1 in the second.
    """
    inputs = _pad(tokenizer.encode_batch(list(texts)), tokenizer)
    if all(isinstance(text, str) for text in texts):
        del inputs["token_type_ids"]
    return inputs


def split_words(text: str) -> list[tuple[int, int]]:
    """Return the range of characters of each word: letters and digits, or one other symbol."""
    return [match.span() for match in WORD.finditer(text)]


def words_to_arrays(
    words: Sequence[Sequence[str]], tokenizer: Tokenizer
) -> tuple[Arrays, list[dict[int, int]]]:
    """Tokenize texts that are split into words, truncate and pad them, as TaggedTexts does.

    Args:
        words: The words of each text.
        tokenizer: With truncation and padding enabled.

    Returns:
        `input_ids` and `attention_mask`, both (B, T), and for each text the `first_tokens`.
    """
    found = tokenizer.encode_batch([list(text) for text in words], is_pretokenized=True)
    inputs = _pad(found, tokenizer)
    del inputs["token_type_ids"]
    return inputs, [first_tokens(encoding) for encoding in found]


def first_tokens(encoding: Encoding) -> dict[int, int]:
    """Return the position of the first token of each word of a text that was split into words.

    Words that were truncated, or have no tokens, such as control characters, are left out.
    """
    first: dict[int, int] = {}
    for position, word in enumerate(encoding.word_ids):
        if word is not None:
            first.setdefault(word, position)
    return first


def _pad(found: Sequence[Encoding], tokenizer: Tokenizer) -> Arrays:
    """Return input_ids, attention_mask and token_type_ids of encoded texts, all (B, T)."""
    # A text without tokens becomes one [UNK]: an attention mask must not be empty.
    width = max([1, *(len(encoding.ids) for encoding in found)])
    pad, unknown = (int(special_token_id(tokenizer, name) or 0) for name in (PAD, UNK))
    ids = np.full((len(found), width), pad, dtype=np.int64)  # (B, T)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)  # (B, T)
    for row, encoding in enumerate(found):
        ids[row, : len(encoding.ids)] = encoding.ids
        types[row, : len(encoding.ids)] = encoding.type_ids
        mask[row, : len(encoding.ids)] = encoding.attention_mask
    empty = ~mask.any(axis=1)  # (B,)
    ids[empty, 0] = unknown
    mask[empty, 0] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
