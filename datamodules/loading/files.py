"""Files of data sets: found in the data folder or downloaded, always verified by checksum."""

import os
import shutil
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pooch
from filelock import FileLock

from engine.errors import UserError


def default_data_dir() -> str:
    """Return the folder of the data sets: the environment's DATA_DIR, else `data`."""
    return os.environ.get("DATA_DIR") or "data"


def obtain(
    path: Path, urls: Sequence[str], checksum: str, offline_config: str = "configs/digits/cnn.yaml"
) -> Path:
    """Return `path`, downloaded first if it does not exist, and verified.

    Concurrent processes download once; the others wait. The file appears under its name only
    when it is complete.

    Args:
        path: Where the file is or will be.
        urls: Mirrors, tried in turn.
        checksum: `"sha256:<hex>"` or `"md5:<hex>"`.
        offline_config: A config to recommend that needs no download.

    Raises:
        UserError: If the file does not match the checksum, or cannot be downloaded.
    """
    if path.exists():
        verify(path, checksum, "Delete it; the next run downloads it again.")
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
        raise UserError(
            f"{path} does not exist and could not be downloaded ({error}). Looked for: {path.name} "
            f"({checksum}) in {path.parent.resolve()}; tried: {', '.join(dict.fromkeys(urls))}. "
            "Put the file there, name another folder with DATA_DIR=… or --data.data_dir …, or "
            f"start with a config that needs no download: --config {offline_config}"
        ) from error
    return path


def _download(path: Path, urls: Sequence[str], checksum: str) -> None:
    """Download from the first mirror that sends the expected content.

    Raises:
        OSError: If no mirror does, with the last mirror's failure.
    """
    failure: OSError = OSError("no URL given")
    http = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60)
    for url in urls:
        downloader = http if url.startswith(("http:", "https:")) else _copy_url
        try:
            pooch.retrieve(url, checksum, path.name, path.parent, downloader=downloader)
        except OSError as error:  # requests' exceptions and timeouts are OSErrors
            failure = error
        except ValueError as error:  # wrong checksum, or an invalid URL
            failure = OSError(f"{url}: {error}")
        else:
            path.chmod(0o644)  # pooch's temporary file is readable by its owner only
            return
    raise failure


def _copy_url(url: str, output_file: str, _: Any) -> None:
    """Download from any other protocol, for pooch."""
    with open_url(url) as source, open(output_file, "wb") as target:
        shutil.copyfileobj(source, target)


def open_url(url: str) -> BinaryIO:
    """Open a remote file, with urllib or with fsspec and the package for the protocol.

    Raises:
        OSError: If it cannot be opened, for any reason.
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
        path: An existing file.
        checksum: `"sha256:<hex>"` or `"md5:<hex>"`.
        remedy: What the user can do about a wrong file, as a sentence.

    Raises:
        UserError: If the file does not match.
    """
    algorithm, _, expected = checksum.partition(":")
    actual = pooch.file_hash(path, algorithm)
    if actual != expected:
        raise UserError(
            f"{path} is damaged or not the expected file: it has {path.stat().st_size:,} bytes "
            f"and {algorithm}:{actual}, expected {checksum}. {remedy}"
        )
