"""Text files, read piece by piece as one long text, however large; all that is wrong is named."""

import codecs
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.tokenization import code_points


def read_text(
    paths: Sequence[Path], start: int = 0, stop: int | None = None, block: int = 2**20
) -> Iterator[str]:
    """The characters `start` … `stop` of the joined files, piece by piece."""
    position = 0
    for path in paths:
        for piece in _decode(path, block):
            end = None if stop is None else max(0, stop - position)
            wanted = piece[max(0, start - position) : end]
            position += len(piece)
            if wanted:
                yield wanted
            if stop is not None and position >= stop:
                return


def _decode(path: Path, block: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while True:
            offset = file.tell() - len(decoder.getstate()[0])  # a character may span two blocks
            data = file.read(block)
            try:
                yield decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise MisconfigurationException(
                    f"{path} is not text in UTF-8: byte {offset + error.start} "
                    f"(0x{error.object[error.start]:02x}) has no meaning there ({error.reason}). "
                    f"Leave the file out, or convert it, for example by "
                    f"`iconv -f latin1 -t utf-8`."
                ) from error
            if not data:
                return


def survey(paths: Sequence[Path]) -> tuple[int, str]:
    """The number of characters in the files, and the different ones among them, sorted."""
    count = 0
    seen = np.zeros(0x110000, dtype=bool)  # one for each code point of Unicode
    for text in read_text(paths):
        count += len(text)
        seen[code_points(text)] = True
    if not count:
        raise MisconfigurationException(
            f"There is no text in {', '.join(map(str, paths))}: 0 characters. "
            "Name files with text in --data.files."
        )
    return count, "".join(map(chr, np.flatnonzero(seen)))


def matching_files(pattern: str) -> list[Path]:
    found = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    if not found and Path(pattern).is_file():  # a name with brackets in it is no pattern
        found = [Path(pattern)]
    if not found:
        raise MisconfigurationException(
            f"No file is named {pattern!r} (looked for from {Path.cwd()}). "
            "Correct it in --data.files, which takes files and patterns such as 'texts/*.txt'."
        )
    return found
