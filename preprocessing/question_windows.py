"""Tokens of a question and of windows that slide over a long text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer


class Window(NamedTuple):
    """The question and a part of the text: `[CLS] question [SEP] part [SEP]` for BERT."""

    tokens: list[int]
    types: list[int]  # 0 in the question, 1 in the text
    offsets: list[tuple[int, int] | None]  # characters of the text; None outside it


def with_windows(tokenizer: Tokenizer, context: int, stride: int) -> Tokenizer:
    """Return the tokenizer with truncation to windows, which `to_str` keeps.

    Args:
        tokenizer: Tokenizer of an encoder.
        context: Maximum number of tokens of a window.
        stride: Tokens of the text that two successive windows share.
    """
    complete = Tokenizer.from_str(tokenizer.to_str())
    complete.enable_truncation(context, stride=stride, strategy="only_second")
    return complete


def encode_windows(
    tokenizer: Tokenizer, questions: Sequence[str], texts: Sequence[str]
) -> list[list[Window]]:
    """Return the windows of each pair of question and text.

    Questions are truncated to half of the context, less the tokens that windows share.

    Args:
        tokenizer: Of `with_windows`.
        questions: One question per text.
        texts: Any texts.
    """
    truncation: Any = tokenizer.truncation
    limit = (truncation["max_length"] - truncation["stride"]) // 2
    tokenizer.no_padding()
    tokenizer.no_truncation()
    found = tokenizer.encode_batch(list(questions), add_special_tokens=False)
    tokenizer.enable_truncation(**truncation)
    short = [
        question if len(one.ids) <= limit else question[: one.offsets[limit - 1][1]]
        for question, one in zip(questions, found, strict=True)
    ]
    encoded = tokenizer.encode_batch(list(zip(short, texts, strict=True)))
    return [[_window(part) for part in (first, *first.overflowing)] for first in encoded]


def _window(encoding: Encoding) -> Window:
    sequences = encoding.sequence_ids
    offsets = encoding.offsets
    inside = [s if n == 1 else None for n, s in zip(sequences, offsets, strict=True)]
    return Window(encoding.ids, encoding.type_ids, inside)


def find_span(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """Return the positions of the first and last token of characters, or None outside the window.

    Args:
        window: A window.
        start: Offset of the first character.
        end: Offset after the last character.
    """
    inside = [(n, span) for n, span in enumerate(window.offsets) if span is not None]
    touched = [n for n, (first, last) in inside if first < end and last > start]
    if not touched or inside[0][1][0] > start or inside[-1][1][1] < end:
        return None
    return touched[0], touched[-1]
