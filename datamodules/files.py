"""Finds a data file, or downloads it once, and vouches for every byte by its checksum."""

import hashlib
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def default_data_dir() -> str:
    """The folder that holds data sets: the environment's DATA_DIR, else `data`."""
    return os.environ.get("DATA_DIR") or "data"


def obtain(
    path: Path, urls: Sequence[str], checksum: str, no_download: str = "configs/digits/cnn.yaml"
) -> Path:
    """Returns `path` once it holds the promised bytes, downloading it if it is not there.

    Args:
        path: Where the file is, or is to be.
        urls: Where it can be had, best first.
        checksum: `sha256:<hex digits>` or `md5:<hex digits>`.
        no_download: The config that the error recommends to someone without network.
    """
    algorithm, _, promised = checksum.partition(":")
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    partial = path.with_name(f"{path.name}.partial")
                    urllib.request.urlretrieve(urls[0], partial)
                    os.replace(partial, path)
        except OSError as error:
            raise MisconfigurationException(
                f"{path} is not there, and no download from {', '.join(urls)} ({error}). "
                f"Put the file with {checksum} there by hand, name another folder by "
                f"--data.data_dir or DATA_DIR, or train on what needs no download: {no_download}."
            ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != promised:
        raise MisconfigurationException(
            f"{path} is not the file expected: {algorithm}:{found} instead of {checksum}. "
            f"Delete it to have it downloaded again from {', '.join(urls)}."
        )
    return path
