"""Conditions on the metadata of documents."""

import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.errors import UserError

RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
FORM = re.compile(r"\s*([\w.-]+)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*")


class Condition(NamedTuple):
    """A relation between a value of the metadata and a constant, such as `year >= 2020`.

    The key `document` is the name of the document; `=` and `!=` compare with a pattern with `*`.
    Numbers are compared as numbers, all else as text. A document without the key does not match.
    """

    key: str
    relation: str
    value: str

    def matches(self, name: str, metadata: Mapping[str, Any]) -> bool:
        """Return whether a document meets the condition."""
        if self.key == "document" and self.relation in ("=", "!="):
            return fnmatch.fnmatchcase(name, self.value) == (self.relation == "=")
        found = name if self.key == "document" else metadata.get(self.key)
        if found is None:
            return False
        numbers = _number(found), _number(self.value)
        if None not in numbers:
            return RELATIONS[self.relation](*numbers)
        return RELATIONS[self.relation](_text(found), self.value)


def parse_condition(text: str) -> Condition:
    """Parse `key=value`, `key!=value`, `key>=value` and the like.

    Raises:
        UserError: If the text has another form.
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise UserError(
            f"--where {text!r}: give a key of the metadata, one of {' '.join(RELATIONS)}, and a "
            "value, such as year>=2020 or document='*.md'."
        )
    return Condition(*match.groups())


def matches_all(conditions: Sequence[Condition], name: str, metadata: Mapping[str, Any]) -> bool:
    """Return whether a document meets all conditions."""
    return all(condition.matches(name, metadata) for condition in conditions)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
