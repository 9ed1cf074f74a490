"""Typical wrong solutions, each an edit of the right one, and the hint that the grader gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A wrong solution.

    Args:
        task: Name of the function or class.
        right: Text that occurs once in its solution.
        wrong: Text that replaces it.
        hint: Text that the grader's messages must contain.
    """

    task: str
    right: str
    wrong: str
    hint: str
