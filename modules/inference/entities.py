"""Entities in sequences of BIO tags."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """An entity as a range of words."""

    kind: str
    start: int  # first word
    end: int  # after the last word


class Entity(NamedTuple):
    """An entity in a raw text."""

    kind: str
    text: str
    start: int  # offset of its first character
    end: int  # offset after its last character
    score: float  # mean probability of its tags


def find_entities(tags: Sequence[str]) -> Iterator[Span]:
    """Yield the entities of BIO tags, by the rules of CoNLL's conlleval.

    An entity starts at `B-<kind>`, and at `I-<kind>` if no entity of that kind precedes. It ends
    before the next tag that does not continue it.
    """
    kind, start = "", 0  # of the open entity; "" where none is open
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, own = tag.partition("-")
        if kind and (prefix != "I" or own != kind):
            yield Span(kind, start, position)
            kind = ""
        if not kind and prefix != "O":
            kind, start = own, position
