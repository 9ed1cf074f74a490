"""Encode long texts fast: in chunks, in parallel, into the smallest integer type."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer, models, pre_tokenizers

from engine.errors import UserError

CHUNK = 2**16  # characters
LONG_CHUNK = 2**24  # for tokenizers that may encode a text differently at the ends of its chunks


def encode_long_text(tokenizer: Tokenizer, pieces: Iterable[str]) -> Iterator[np.ndarray]:
    """Encode a long text that comes in pieces, without special tokens.

    The tokens are those of the joined text. Only tokenizers other than our own, such as
    SentencePiece's, may give another token every 16 million characters.
    """
    if not is_character_tokenizer(tokenizer):
        pieces = split_into_chunks(pieces, chunk_size(tokenizer))
    return encode_texts(tokenizer, pieces, special_tokens=False)


def encode_texts(
    tokenizer: Tokenizer, texts: Iterable[str], special_tokens: bool = True
) -> Iterator[np.ndarray]:
    """Encode each text separately; `special_tokens` adds those of the tokenizer, such as [CLS].

    Raises:
        UserError: If a character tokenizer lacks a character, naming it.
    """
    dtype = token_dtype(tokenizer)
    if not is_character_tokenizer(tokenizer):
        for encoding in encode_batches(tokenizer, texts, special_tokens):
            yield np.array(encoding.ids, dtype)
        return
    ids = {ord(token): index for token, index in tokenizer.get_vocab().items() if len(token) == 1}
    table, known = np.zeros(0x110000, dtype), np.zeros(0x110000, dtype=bool)  # all of Unicode
    table[list(ids)], known[list(ids)] = list(ids.values()), True
    for text in texts:
        points = code_points(text)
        if not known[points].all():
            raise UserError(
                f"the text contains {list_characters(text, set(map(chr, ids)))}, which the "
                "tokenizer lacks: a character tokenizer has only the characters of the text that "
                "it was built from. Remove them from the text, or choose the tokenizer bpe or gpt2."
            )
        yield table[points]


def encode_batches(
    tokenizer: Tokenizer,
    texts: Iterable[Any],
    special_tokens: bool = True,
    is_pretokenized: bool = False,
) -> Iterator[Encoding]:
    """Encode texts, pairs of texts or lists of words, with the tokenizer's truncation."""
    texts = iter(texts)
    while batch := list(islice(texts, 64)):  # encoded in parallel by the library
        if is_pretokenized:  # the fast method does not say which word a token is of
            yield from tokenizer.encode_batch(batch, is_pretokenized, special_tokens)
        else:
            yield from tokenizer.encode_batch_fast(batch, add_special_tokens=special_tokens)


def list_characters(text: str, known: set[str]) -> str:
    """List the characters of a text that are not among the known ones, at most ten of them."""
    unknown = sorted(set(text) - known)
    listed = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in unknown[:10])
    return f"{listed} and {len(unknown) - 10} more" if len(unknown) > 10 else listed


def is_character_tokenizer(tokenizer: Tokenizer) -> bool:
    """Return whether `character_tokenizer` made it: its unknown token is in no vocabulary."""
    return isinstance(tokenizer.model, models.WordLevel) and tokenizer.model.unk_token == ""


def token_dtype(tokenizer: Tokenizer) -> type[np.uint16] | type[np.uint32]:
    """Return the smaller of two integer types that holds every token."""
    return np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32


def code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def split_into_chunks(texts: Iterable[str], size: int = CHUNK) -> Iterator[str]:
    """Split a text that comes in pieces into chunks of at least `size` characters.

    Split only before a space or newline that follows visible text: GPT-2's pre-tokenizer always
    starts a new word there, so byte-level BPE gives the same tokens as for the whole text.
    """
    split_point = re.compile(r"(?<=\S)[ \n]")
    rest = ""
    for text in texts:
        rest += text
        start = 0
        while found := split_point.search(rest, start + size):
            yield rest[start : found.start()]
            start = found.start()
        rest = rest[start:]
    if rest:
        yield rest


def chunk_size(tokenizer: Tokenizer) -> int:
    """Return the minimum characters of a chunk: small ones if they do not change the tokens."""
    step = tokenizer.pre_tokenizer
    words = isinstance(step, (pre_tokenizers.Split, pre_tokenizers.BertPreTokenizer))
    byte_level = isinstance(step, pre_tokenizers.ByteLevel) and not step.add_prefix_space
    return CHUNK if byte_level or words else LONG_CHUNK
