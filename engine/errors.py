"""User errors: one message on stderr and exit code 2."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """An error of the user: the message says what is wrong, where, and what to do."""


@contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Print the message of a user error to stderr and exit with code 2.

    User errors are UserError, Lightning's MisconfigurationException and jsonargparse's
    ArgumentError; any other exception is a bug and keeps its traceback.
    """
    # UserError alone is raised where neither is installed.
    from jsonargparse import ArgumentError
    from lightning.pytorch.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    try:
        yield
    except (ArgumentError, MisconfigurationException, UserError) as error:
        if getattr(rank_zero_only, "rank", 0) == 0:
            sys.stderr.write(f"{program}: error: {error}\n")
        sys.exit(2)
