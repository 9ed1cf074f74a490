"""Report a full disk: the file, the free space, and how to resume."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(Exception):
    """No space is left for a file of the run."""

    exit_code = 74  # EX_IOERR of sysexits.h


@contextmanager
def remove_if_disk_full(path: Path, *others: Path) -> Iterator[None]:
    """Remove incomplete files if the disk is full, and name the file in the error.

    Args:
        path: File or folder that is written inside the context.
        others: Further files to remove on failure.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch's file writer raises RuntimeError
        cause = find_disk_full(error)
        if cause is None:
            raise
        for part in (path, *others):
            if part.is_dir():  # a sharded checkpoint
                shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
        cause.filename = str(path)
        raise cause from None


def find_disk_full(error: BaseException | None) -> OSError | None:
    """Return the full-disk error that caused an error, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def disk_full_error(error: OSError, folder: Path | None) -> DiskFull:
    """Return the exception with the message for the user.

    Args:
        error: The operating system's error.
        folder: The run folder.
    """
    if folder is not None and not folder.exists():  # the run failed before training
        place, folder = folder.parent, None
    else:
        place = folder or Path.cwd()
    while not place.exists():
        place = place.parent
    file = error.filename or f"a file of {place}"
    text = f"error: no space left to write {file}: {_free_space(place)}"
    if (temporary := Path(tempfile.gettempdir())).stat().st_dev != place.stat().st_dev:
        text += f", and {_free_space(temporary)}, where checkpoints are written first"
    if folder is None:
        return DiskFull(text + ".")
    last = folder / "checkpoints/last.ckpt"
    if last.exists():
        text += f". {last} is complete. Free some space, then resume with: "
        return DiskFull(text + f"python train.py fit --resume {folder}")
    text += ". This run has no checkpoint yet: free some space and start it again"
    return DiskFull(text + ".")


def _free_space(place: Path) -> str:
    return f"{shutil.disk_usage(place).free / 2**20:,.1f} MiB free in {place}"
