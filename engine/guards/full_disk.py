"""A disk that is full: which file, how much is free, and that the run can go on."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(Exception):
    """There is no room for a file of the run."""

    exit_code = 74  # "error in input or output" of sysexits.h


@contextmanager
def remove_if_disk_full(path: Path, *others: Path) -> Iterator[None]:
    """Name the file where writing it fails, and leave no half of it.

    Args:
        path: What is written; it is removed where the disk is full.
        others: What is removed then, too.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch's writer of files raises the latter
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
    """The full disk behind an error, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def disk_full_error(error: OSError, folder: Path | None) -> DiskFull:
    """The message of a full disk.

    Args:
        error: What the system said.
        folder: The run folder.
    """
    if folder is not None and not folder.exists():  # it failed before it trained
        place, folder = folder.parent, None
    else:
        place = folder or Path.cwd()
    while not place.exists():
        place = place.parent
    file = error.filename or f"a file of {place}"
    text = f"error: no room to write {file}: {_free(place)}"
    if (temporary := Path(tempfile.gettempdir())).stat().st_dev != place.stat().st_dev:
        text += f", and {_free(temporary)}, where checkpoints are written first"
    if folder is None:
        return DiskFull(text + ".")
    last = folder / "checkpoints/last.ckpt"
    if last.exists():
        text += f". {last} is whole; make room, and `python train.py fit --resume {folder}` goes on"
    else:
        text += ". There is no checkpoint of this run yet: make room, and start it again"
    return DiskFull(text + ".")


def _free(place: Path) -> str:
    return f"{shutil.disk_usage(place).free / 2**20:,.1f} MiB are free in {place}"
