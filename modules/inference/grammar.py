"""Constrain generated text to a JSON schema or a regular expression, with llguidance.

At each step the grammar engine returns the tokens that can continue the text; the logits of all
others become -inf (Willard & Louf 2023, "Efficient guided generation for large language models").
"""

import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from engine.errors import UserError

# Between the parts of a JSON text. JSON allows any amount, and small models write it without end.
WHITESPACE = {"whitespace_pattern": r"[ \n]?"}
NO_END = "<|no end of text|>"
LACKING = (
    "no token of this model can continue the text as the JSON schema or regular expression "
    "requires: its vocabulary lacks the characters."
)


class Grammar:
    """What a generated text has to match, for the tokens of one model.

    Args:
        definition: From `json_schema` or `regex`.
        tokenizer: The tokenizer.
        vocab_size: Number of tokens of the network.
        end_tokens: Tokens that end a text. Without any, a text ends only where nothing can follow.
    """

    def __init__(
        self,
        definition: str,
        tokenizer: Tokenizer,
        vocab_size: int,
        end_tokens: Collection[int] = (),
    ) -> None:
        self.definition = definition
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        if not end_tokens:  # the engine needs one, which the network does not have then
            tokenizer.add_special_tokens([NO_END])
            end_tokens = [tokenizer.get_vocab()[NO_END]]
        end, size = sorted(end_tokens), max(vocab_size, tokenizer.get_vocab_size())
        source: Any = tokenizer.to_str()
        if isinstance(tokenizer.model, models.WordLevel):  # not supported by llguidance
            source = _llguidance().TokenizerWrapper(_characters(tokenizer, size, end[0]))
        self.tokenizer = _llguidance().LLTokenizer(source, n_vocab=size, eos_token=end)

    def matcher(self) -> "Matcher":
        """Return the state of one text, which is empty."""
        return Matcher(self)


class Matcher:
    """Match the tokens of one text."""

    def __init__(self, grammar: Grammar) -> None:
        self._matcher = _llguidance().LLMatcher(grammar.tokenizer, grammar.definition)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits: Tensor) -> Tensor:
        """Return logits (V,) with -inf for tokens that cannot continue the text.

        Raises:
            UserError: If no token of the network can.
        """
        if self.complete:
            return logits
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)  # (V,)
        if not allowed.any():
            raise UserError(LACKING)
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Append a token that `mask` allows; has no effect on a complete text."""
        if not self.complete:
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            message = self._matcher.get_error().splitlines()[0]
            lacking = message.startswith("NoExtension")  # no token is a continuation
            raise UserError(LACKING if lacking else f"the grammar engine failed: {message}.")


def json_schema(text: str, where: str = "the JSON schema") -> str:
    """Return the definition of a grammar.

    Args:
        text: A JSON schema.
        where: Its source, for messages.

    Raises:
        UserError: If it is not JSON or not a schema that llguidance supports.
    """
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise UserError(f"{where} is not a JSON schema: expected an object, got {text[:40]!r}.")
    definition = _llguidance().LLMatcher.grammar_from_json_schema(text, WHITESPACE)
    return _checked(definition, where)


def read_json_schema(path: Path) -> str:
    """Return the definition of the grammar of a file with a JSON schema; see `json_schema`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as UTF-8 text: {error}.") from error
    return json_schema(text, str(path))


def regex(pattern: str) -> str:
    """Return the definition of a grammar of texts that a regular expression matches completely.

    Args:
        pattern: In the syntax of Rust's regex crate.

    Raises:
        UserError: If it is not valid.
    """
    definition = _llguidance().LLMatcher.grammar_from_regex(pattern)
    return _checked(definition, f"the regular expression {pattern!r}")


def _checked(definition: str, where: str) -> str:
    message: str = _llguidance().LLMatcher.validate_grammar(definition)
    if message and not message.startswith("WARNING"):
        raise UserError(f"{where} is not valid: {message.strip().splitlines()[0]}.")
    return definition


def _characters(tokenizer: Tokenizer, size: int, end: int) -> SimpleNamespace:
    """Return a tokenizer of characters in the form that llguidance takes."""
    names = [tokenizer.id_to_token(token) or "" for token in range(size)]
    ids = {name: token for token, name in enumerate(names) if name}
    special = [token for token, name in enumerate(names) if len(name) != 1]

    class Wrapped(SimpleNamespace):
        def __call__(self, text: bytes) -> list[int]:
            return [ids[character] for character in text.decode() if character in ids]

    return Wrapped(
        eos_token_id=end,
        bos_token_id=None,
        special_token_ids=special,
        tokens=[name.encode() for name in names],
    )


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise UserError(
            'JSON schemas and regular expressions need llguidance: pip install "stepladder'
            '[structured]".'
        ) from error
    return llguidance
