"""The pair of texts from which a classifier judges whether a passage supports an answer."""

MARGIN = 300  # characters on each side of what a passage is about


def surroundings(text: str, start: int, end: int, margin: int = MARGIN) -> str:
    """Return the characters from `start` to `end` with whole words on both sides.

    Args:
        text: Any text.
        start: Offset of the first character.
        end: Offset after the last character.
        margin: Largest number of characters on each side.
    """
    first, last = max(0, start - margin), min(len(text), end + margin)
    if first:
        first = text.find(" ", first, start) + 1 or start
    if last < len(text):
        last = max(text.rfind(" ", end, last), end)
    return text[first:last].strip()


def statement(question: str, answer: str) -> str:
    """Return an answered question."""
    return f"{question} {answer}"
