"""Decode generated tokens to text incrementally."""

from collections.abc import Callable, Sequence


class TextStreamer:
    """Decode the tokens of one text as they are generated.

    Pieces of text contain complete characters only and nothing of the stop strings.

    Args:
        decode: Function from tokens to text.
        stop: End the text before this string, or before the first of several.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: str | Sequence[str] | None = None
    ) -> None:
        self.decode = decode
        self.stops = [text for text in ([stop] if isinstance(stop, str) else stop or ()) if text]
        self.ended = False
        self.stopped = False  # ended by a stop string or an end token
        self.tokens: list[int] = []
        # Decode only the tokens from `decoded` on, together with those from `context` on: some
        # tokenizers decode a token differently at the beginning of a text.
        self.context = self.decoded = 0
        self.pending = ""  # decoded text that may be the beginning of a stop string

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
        if found := [self.pending.index(stop) for stop in self.stops if stop in self.pending]:
            self.ended = self.stopped = True
            return self.pending[: min(found)]
        self.ended = last
        ready = len(self.pending) if last else len(self.pending) - self._stop_prefix_length()
        piece, self.pending = self.pending[:ready], self.pending[ready:]
        return piece

    def end(self) -> str:
        """End the text before a token that is not part of it; return the remaining text."""
        self.ended = self.stopped = True
        piece, self.pending = self.pending, ""
        return piece

    def _stop_prefix_length(self) -> int:
        """Return the length of the longest suffix of `pending` that a stop string begins with."""
        lengths = [
            length
            for stop in self.stops
            for length in range(1, min(len(stop) - 1, len(self.pending)) + 1)
            if self.pending.endswith(stop[:length])
        ]
        return max(lengths, default=0)
