"""Files of a data set: found in the data folder or downloaded, and never used unverified."""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

import fsspec
from filelock import FileLock
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def default_data_dir() -> str:
    """The folder that holds data sets: the environment's DATA_DIR, else `data`."""
    return os.environ.get("DATA_DIR") or "data"


def obtain(
    path: Path, urls: Sequence[str], checksum: str, offline_config: str = "configs/digits/cnn.yaml"
) -> Path:
    """Return `path` once it is there and verified, downloading it if need be.

    Several processes may ask at once: one downloads, the others wait. The file appears under its
    name only when it is whole.

    Args:
        path: Where the file is or will be.
        urls: Mirrors, tried in turn.
        checksum: `"sha256:<hex>"` or `"md5:<hex>"`.
        offline_config: A config to recommend that needs no such file.

    Raises:
        MisconfigurationException: If the file is damaged, or neither there nor to be had.
    """
    if path.exists():
        verify(path, checksum, "Delete it; the next run downloads it anew.")
        return path
    new_folders = [folder for folder in path.parents if not folder.exists()]  # deepest first
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.exists():
                _download(path, urls, checksum)
    except OSError as error:
        with suppress(OSError):  # another process may still try
            lock.unlink()
            for folder in new_folders:
                folder.rmdir()
        raise MisconfigurationException(
            f"{path} is not there and could not be downloaded ({error}). Looked for: {path.name} "
            f"({checksum}) in {path.parent.resolve()}; tried: {', '.join(dict.fromkeys(urls))}. "
            "Put the file there, name another folder with DATA_DIR=… or --data.data_dir …, or "
            f"start with a config that needs no download: --config {offline_config}"
        ) from error
    return path


def _download(path: Path, urls: Sequence[str], checksum: str) -> None:
    partial = path.with_name(path.name + ".part")
    failure: OSError = OSError("no URL given")
    try:
        for url in urls:
            try:
                with open_url(url) as source, partial.open("wb") as target:
                    shutil.copyfileobj(source, target)
            except OSError as error:  # URLError and timeouts are OSErrors
                failure = error
                continue
            except HTTPException as error:  # the connection broke off
                failure = OSError(f"{url}: {error!r}")
                continue
            seen = _checksum(partial, checksum)
            if seen == checksum:
                partial.replace(path)
                return
            failure = OSError(f"{url} sent {partial.stat().st_size:,} bytes with {seen}")
    finally:
        partial.unlink(missing_ok=True)
    raise failure


def open_url(url: str) -> BinaryIO:
    """Opens what lies elsewhere: by Python itself, or by fsspec and the package for the protocol.

    Raises:
        OSError: If that can't be done, for whatever reason.
    """
    try:
        if url.startswith(("http:", "https:", "file:")):
            opened: BinaryIO = urllib.request.urlopen(url, timeout=60)
            return opened
        return fsspec.open(url, "rb").open()
    except (ImportError, ValueError, HTTPException) as error:  # no package, no protocol, no URL
        raise OSError(str(error)) from error


def verify(path: Path, checksum: str, remedy: str) -> None:
    """Compare a file with its checksum.

    Args:
        path: A file that is there.
        checksum: `"sha256:<hex>"` or `"md5:<hex>"`.
        remedy: What a user can do about a damaged file, as a sentence.
    """
    seen = _checksum(path, checksum)
    if seen != checksum:
        raise MisconfigurationException(
            f"{path} is damaged or not the file meant: it has {path.stat().st_size:,} bytes "
            f"and {seen}, but {checksum} is expected. {remedy}"
        )


def _checksum(path: Path, like: str) -> str:
    kind = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"
