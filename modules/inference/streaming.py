"""Tokens in, pieces of text out: whole characters only, and nothing of the stop string."""

from collections.abc import Callable, Sequence


class Pieces:
    """The growing text of one prompt.

    Args:
        decode: The text of tokens.
        stop: The text ends before this string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: str | None = None) -> None:
        self.decode = decode
        self.stop = stop or ""
        self.ended = False
        self.tokens: list[int] = []
        # Only the tokens from `settled` on are decoded again, with the last settled ones before
        # them: some tokenizers write a token differently at the beginning of a text.
        self.before = self.settled = 0
        self.held = ""  # decoded, but it may be the beginning of the stop string

    def add(self, token: int, last: bool = False) -> str:
        """Take the next token; give what can be told of the text by now.

        Args:
            token: The next token.
            last: No other one will come: tell everything.
        """
        self.tokens.append(token)
        known = self.decode(self.tokens[self.before : self.settled])
        text = self.decode(self.tokens[self.before :])
        if last or not text.endswith("\ufffd"):  # else bytes that do not make a character yet
            self.before, self.settled = self.settled, len(self.tokens)
            self.held += text[len(known) :]
        if self.stop and self.stop in self.held:
            self.ended = True
            return self.held[: self.held.index(self.stop)]
        self.ended = last
        ready = len(self.held) if last else len(self.held) - self._beginning_of_stop()
        piece, self.held = self.held[:ready], self.held[ready:]
        return piece

    def _beginning_of_stop(self) -> int:
        """Length of the longest end of `held` that the stop string begins with."""
        sizes = range(min(len(self.stop) - 1, len(self.held)), 0, -1)
        return next((size for size in sizes if self.held.endswith(self.stop[:size])), 0)
