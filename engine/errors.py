"""User errors: one message on stderr and exit code 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentError
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class UserError(MisconfigurationException):
    """A mistake of the user: the message says what is wrong, where, and what to do."""


@contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Print the paragraph of a user's mistake to stderr and exit with code 2.

    A mistake is what raises MisconfigurationException; anything else is a bug and keeps its
    traceback.
    """
    try:
        yield
    except (ArgumentError, MisconfigurationException) as error:
        if getattr(rank_zero_only, "rank", 0) == 0:
            sys.stderr.write(f"{program}: error: {error}\n")
        sys.exit(2)
