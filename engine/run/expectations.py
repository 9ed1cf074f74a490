"""Promises: the results that a config expects of itself, `test/accuracy: ">= 0.98"`."""

import operator
import re
from collections.abc import Callable

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def is_met(promise: str, value: float) -> bool:
    """Whether a value keeps a promise; NaN keeps none.

    Six digits of the value count: 9,970 right of 10,000 are 0.99699998 in float32, and keep 0.997.

    Args:
        promise: A relation and a number, such as `">= 0.98"`.
        value: What was measured.

    Raises:
        ValueError: If the promise is not of that form.
    """
    match = re.fullmatch(r"\s*(>=|<=|>|<)\s*([-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)\s*", promise)
    if match is None:
        raise ValueError(
            f'a promise reads like ">= 0.98" (>=, <=, > or <, and a number), not {promise!r}'
        )
    return _RELATIONS[match[1]](float(f"{value:.6g}"), float(match[2]))
