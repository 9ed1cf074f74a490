"""Sentences and chunks: budget, overlap, headings, exact offsets."""

import re
from itertools import pairwise

import pytest

from engine.errors import UserError
from retrieval.chunks import ChunkSplitter, split_sections, split_sentences, windows
from tests.support.retrieval import HashedWords

TEXT = """Before any heading.

# One

Dr. Smith paid $3.50 in the U.S. on Jan. 5. "Why?" he asked! It was e.g. a test.

## Two

- first item
- second item

```python
# not a heading
```

# Three #

Last one
"""


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ("Dr. Smith met J. R. Lee. They left.", ["Dr. Smith met J. R. Lee.", "They left."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("See Fig. 3 of it, i.e. The map. Done.", ["See Fig. 3 of it, i.e. The map.", "Done."]),
        ("A title\n\nA text\n- one\n- two", ["A title", "A text", "- one", "- two"]),
        ("これは犬。あれは猫。", ["これは犬。", "あれは猫。"]),
        ("  \n ", []),
    ],
)
def test_split_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_sections_have_the_path_of_their_headings() -> None:
    found = [
        (heading, TEXT[start:end].strip()[:12]) for heading, (start, end) in split_sections(TEXT)
    ]
    assert found == [
        ("", "Before any h"),
        ("One", "Dr. Smith pa"),
        ("One > Two", "- first item"),
        ("Three", "Last one"),
    ]


@pytest.mark.parametrize(("max_tokens", "overlap"), [(8, 0), (12, 5), (200, 30)])
def test_chunks_keep_budget_overlap_and_all_characters(max_tokens: int, overlap: int) -> None:
    text = TEXT + "\n\n" + "word " * 100 + "Some more words. " * 10
    tokenizer = HashedWords().tokenizer
    chunks = ChunkSplitter(tokenizer, max_tokens, overlap).split(text)
    covered = set()
    for chunk in chunks:
        pieces = [tokenizer.encode(text[start:end]).ids for start, end in chunk.sentences]
        assert sum(map(len, pieces)) <= max_tokens
        assert (chunk.start, chunk.end) == (chunk.sentences[0][0], chunk.sentences[-1][1])
        covered |= set(range(chunk.start, chunk.end))
    headings = {p for m in re.finditer(r"^#+ [OT].*$", text, re.M) for p in range(*m.span())}
    visible = {position for position, c in enumerate(text) if not c.isspace()}
    assert covered >= visible - headings
    assert not covered & headings
    shared = [set(a.sentences) & set(b.sentences) for a, b in pairwise(chunks)]
    assert any(shared) == (overlap == 5)
    for spans in shared:
        assert sum(len(tokenizer.encode(text[s:e]).ids) for s, e in spans) <= overlap


def test_windows_of_sentences() -> None:
    spans = [(0, 3), (4, 7), (8, 11)]
    assert windows(spans, 1) == spans
    assert windows(spans, 2) == [(0, 7), (4, 11)]
    assert windows(spans, 5) == [(0, 11)]


@pytest.mark.parametrize(("max_tokens", "overlap"), [(7, 0), (20, 20), (20, -1)])
def test_invalid_sizes(max_tokens: int, overlap: int) -> None:
    with pytest.raises(UserError, match="must be at least"):
        ChunkSplitter(HashedWords().tokenizer, max_tokens, overlap)
