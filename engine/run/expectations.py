"""Compare final metrics with the config's `expect:`, such as `test/accuracy: ">= 0.98"`."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# val/loss and, as other LightningModules name it, val_loss, valid_loss or validation_loss
STAGE_AND_METRIC = re.compile("(train|val|test)(?:id|idation|ing)?[/_](.+)")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Judgment:
    """An expectation of one metric, the measured value, and how they compare."""

    expected: str
    value: float | None
    verdict: str  # "met", "not met" or "not judged"
    reason: str | None = None  # of "not judged"


def judge(
    expectations: Mapping[str, str], metrics: Mapping[str, float], not_judged: str | None = None
) -> dict[str, Judgment]:
    """Compare metrics with what is expected of them.

    Args:
        expectations: Metric to expectation, the config's `expect`.
        metrics: Metric to measured value.
        not_judged: Why the expectations do not apply to this run; None if they do.
    """
    judgments = {}
    for name, expected in expectations.items():
        value = metrics.get(name)
        reason = not_judged or (None if value is not None else "not measured in this run")
        verdict = "not judged"
        if reason is None and value is not None:
            verdict = "met" if is_met(expected, value) else "not met"
        judgments[name] = Judgment(expected, value, verdict, reason)
    return judgments


def is_met(expectation: str, value: float) -> bool:
    """Return whether a value meets an expectation; NaN never does.

    The value is rounded to six digits: 9,970 correct of 10,000 are 0.99699998 in float32 and meet
    ">= 0.997".

    Args:
        expectation: A relation and a number, such as `">= 0.98"`.
        value: The measured value.

    Raises:
        ValueError: If the expectation has another form.
    """
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    match = re.fullmatch(rf"\s*(>=|<=|>|<)\s*({number})\s*", expectation)
    if match is None:
        raise ValueError(
            f'{expectation!r} is not a relation (>=, <=, > or <) and a number, such as ">= 0.98"'
        )
    return _RELATIONS[match[1]](float(f"{value:.6g}"), float(match[2]))
