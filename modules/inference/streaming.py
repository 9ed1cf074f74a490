"""Decode generated tokens to text incrementally."""

from collections.abc import Callable, Sequence


class TextStreamer:
    """Decode the tokens of one text as they are generated.

    Pieces of text contain complete characters only and nothing of the stop string.

    Args:
        decode: Function from tokens to text.
        stop: End the text before this string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: str | None = None) -> None:
        self.decode = decode
        self.stop = stop or ""
        self.ended = False
        self.tokens: list[int] = []
        # Decode only the tokens from `decoded` on, together with those from `context` on: some
        # tokenizers decode a token differently at the beginning of a text.
        self.context = self.decoded = 0
        self.pending = ""  # decoded text that may be the beginning of the stop string

    def add(self, token: int, last: bool = False) -> str:
        """Add a token and return the text that is complete.

        Args:
            token: The next token.
            last: Return all remaining text, since no token follows.
        """
        self.tokens.append(token)
        previous = self.decode(self.tokens[self.context : self.decoded])
        text = self.decode(self.tokens[self.context :])
        if last or not text.endswith("\ufffd"):  # "\ufffd": bytes of an incomplete character
            self.context, self.decoded = self.decoded, len(self.tokens)
            self.pending += text[len(previous) :]
        if self.stop and self.stop in self.pending:
            self.ended = True
            return self.pending[: self.pending.index(self.stop)]
        self.ended = last
        ready = len(self.pending) if last else len(self.pending) - self._stop_prefix_length()
        piece, self.pending = self.pending[:ready], self.pending[ready:]
        return piece

    def end(self) -> str:
        """End the text before a token that is not part of it; return the remaining text."""
        self.ended = True
        piece, self.pending = self.pending, ""
        return piece

    def _stop_prefix_length(self) -> int:
        """Return the length of the longest suffix of `pending` that the stop string begins with."""
        lengths = range(min(len(self.stop) - 1, len(self.pending)), 0, -1)
        return next((n for n in lengths if self.pending.endswith(self.stop[:n])), 0)
