"""Split documents into chunks of complete sentences under a budget of tokens."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer

from engine.errors import UserError

Span = tuple[int, int]  # characters of a document

HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t#]*$")
FENCE = re.compile(r"\s*(```|~~~)")
# The end of a sentence, or an empty line, a form feed, or the start of an item of a list.
BOUNDARY = re.compile(
    r"[.!?…]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-Þ])"
    r"|[。！？]+\s*"
    r"|\n\s*\n\s*|\f+"
    r"|\n(?=[ \t]*(?:[-*+•|]|\d+[.)])[ \t])"
)
ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|vs|etc|e\.g|i\.e|cf|al|approx|ca|No|Nos|Fig|Figs|Eq|Vol"
    r"|pp|Inc|Ltd|Co|Corp|Gen|Col|Lt|Rev|Hon|Jan|Feb|Aug|Sept|Oct|Nov|Dec)|(?:^|[\s(.])[A-Z])\.\s+$"
)


class Chunk(NamedTuple):
    """A part of a document.

    Args:
        start: Offset of its first character.
        end: Offset after its last character.
        heading: Headings that it stands under, outermost first, separated by ` > `.
        sentences: The spans of its sentences.
    """

    start: int
    end: int
    heading: str
    sentences: tuple[Span, ...]


@dataclass(frozen=True)
class ChunkSplitter:
    """Split texts into chunks.

    A chunk is a run of sentences of one section that has at most `max_tokens` tokens; the last
    sentences of a chunk, up to `overlap` tokens, also begin the next one. A longer sentence is
    divided between words.

    Args:
        tokenizer: Tokenizer of the encoder, without truncation.
        max_tokens: Maximum number of tokens of a chunk, special tokens and heading not counted.
        overlap: Maximum number of tokens that two successive chunks share.
    """

    tokenizer: Tokenizer
    max_tokens: int = 200
    overlap: int = 30

    def __post_init__(self) -> None:
        if self.max_tokens < 8:
            raise UserError(f"max_tokens must be at least 8, got {self.max_tokens}.")
        if not 0 <= self.overlap < self.max_tokens:
            raise UserError(
                f"overlap must be at least 0 and below max_tokens ({self.max_tokens}), got "
                f"{self.overlap}."
            )

    def split(self, text: str) -> list[Chunk]:
        """Return the chunks of a text, in order; each character but white space is in one."""
        return [
            Chunk(part[0][0], part[-1][1], heading, tuple(part))
            for heading, span in split_sections(text)
            for part in self._pack(text, split_sentences(text, *span))
        ]

    def _pack(self, text: str, sentences: Sequence[Span]) -> Iterator[list[Span]]:
        """Group sentences into chunks."""
        pieces = [p for span in self._counted(text, sentences) for p in self._divide(text, *span)]
        part: list[tuple[Span, int]] = []
        for piece in pieces:
            if part and sum(n for _, n in part) + piece[1] > self.max_tokens:
                yield [span for span, _ in part]
                budget = min(self.overlap, self.max_tokens - piece[1])
                while part and sum(n for _, n in part) > budget:
                    part.pop(0)
            part.append(piece)
        if part:
            yield [span for span, _ in part]

    def _counted(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, int]]:
        texts = [text[start:end] for start, end in spans]
        found = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [(span, len(one.ids)) for span, one in zip(spans, found, strict=True)]

    def _divide(self, text: str, span: Span, tokens: int) -> Iterator[tuple[Span, int]]:
        """Yield a sentence, or the parts of one that exceeds the budget."""
        if tokens <= self.max_tokens:
            yield span, tokens
            return
        start = span[0]
        encoding = self.tokenizer.encode(text[start : span[1]], add_special_tokens=False)
        offsets = encoding.offsets
        first = 0
        while first < len(offsets):
            last = min(first + self.max_tokens, len(offsets))
            if last < len(offsets):  # prefer to divide between words
                end = last
                while end > first + 1 and offsets[end - 1][1] == offsets[end][0]:
                    end -= 1
                last = end if end > first + 1 else last
            yield (start + offsets[first][0], start + offsets[last - 1][1]), last - first
            first = last


def split_sections(text: str) -> Iterator[tuple[str, Span]]:
    """Yield the parts of a text between lines that are Markdown headings, with their headings.

    A heading is part of no section's span. Lines in fenced code are not headings.
    """
    path: list[tuple[int, str]] = []
    start = position = 0
    fence: str | None = None
    for line in text.splitlines(keepends=True):
        if mark := FENCE.match(line):
            fence = (None if mark[1] == fence else fence) if fence else mark[1]
        elif fence is None and (found := HEADING.match(line.rstrip())):
            if text[start:position].strip():
                yield " > ".join(title for _, title in path), (start, position)
            level = len(found[1])
            path = [*(one for one in path if one[0] < level), (level, found[2])]
            start = position + len(line)
        position += len(line)
    if text[start:].strip():
        yield " > ".join(title for _, title in path), (start, len(text))


def split_sentences(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Return the spans of the sentences in a part of a text, without surrounding white space.

    Blocks that an empty line separates, and items of lists, are sentences of their own.
    """
    end = len(text) if end is None else end
    spans, first = [], start
    for match in BOUNDARY.finditer(text, start, end):
        if not ABBREVIATION.search(text[max(first, match.end() - 12) : match.end()]):
            spans.append((first, match.end()))
            first = match.end()
    stripped = (_strip(text, *span) for span in [*spans, (first, end)])
    return [span for span in stripped if span[0] < span[1]]


def _strip(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))


def windows(sentences: Sequence[Span], size: int) -> list[Span]:
    """Return the spans of each run of `size` successive sentences; of all if there are fewer."""
    last = max(1, len(sentences) - size + 1)
    return [(sentences[i][0], sentences[min(i + size, len(sentences)) - 1][1]) for i in range(last)]
