"""Convert raw texts to the padded token batches that a network was trained on."""

import re
from collections.abc import Sequence

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from preprocessing.special_tokens import PAD, UNK, find_special_token, special_token_id

WORD = re.compile(r"\w+|[^\w\s]")


def with_truncation_and_padding(tokenizer: Tokenizer, context: int) -> str:
    """Return the tokenizer as JSON; its `encode_batch` then gives what the model was trained on."""
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.enable_truncation(context)
    pad = find_special_token(complete, PAD) or PAD
    complete.enable_padding(pad_id=special_token_id(complete, PAD), pad_token=pad)
    return complete.to_str()


def texts_to_inputs(
    texts: Sequence[str | tuple[str, str]], tokenizer: Tokenizer
) -> dict[str, Tensor]:
    """Tokenize texts or pairs of texts, truncate and pad them, as the DataModule did.

    Args:
        texts: Raw texts or pairs, one or more.
        tokenizer: With truncation and padding enabled, as in a text DataModule's `tokenizer_json`.

    Returns:
        `input_ids` and `attention_mask`, both (B, T); the mask is True at tokens. Pairs also have
        `token_type_ids` (B, T): 0 in the first text, 1 in the second.
    """
    inputs = _pad(tokenizer.encode_batch(list(texts)), tokenizer)
    if all(isinstance(text, str) for text in texts):
        del inputs["token_type_ids"]
    return inputs


def split_words(text: str) -> list[tuple[int, int]]:
    """Return the range of characters of each word: letters and digits, or one other symbol."""
    return [match.span() for match in WORD.finditer(text)]


def words_to_inputs(
    words: Sequence[Sequence[str]], tokenizer: Tokenizer
) -> tuple[dict[str, Tensor], list[dict[int, int]]]:
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


def _pad(found: Sequence[Encoding], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return input_ids, attention_mask and token_type_ids of encoded texts, all (B, T)."""
    # A text without tokens becomes one [UNK]: an attention mask must not be empty.
    width = max([1, *(len(encoding.ids) for encoding in found)])
    pad, unknown = (int(special_token_id(tokenizer, name) or 0) for name in (PAD, UNK))
    ids = torch.full((len(found), width), pad)  # (B, T)
    types = torch.zeros_like(ids)  # (B, T)
    mask = torch.zeros_like(ids, dtype=torch.bool)  # (B, T)
    for row, encoding in enumerate(found):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        types[row, : len(encoding.ids)] = torch.tensor(encoding.type_ids, dtype=torch.int64)
        mask[row, : len(encoding.ids)] = torch.tensor(encoding.attention_mask, dtype=torch.bool)
    empty = ~mask.any(dim=1)  # (B,)
    ids[empty, 0] = unknown
    mask[empty, 0] = True
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
