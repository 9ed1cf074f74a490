"""Text files, read piece by piece however large, as one text or as documents; errors are named."""

import codecs
import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.text.tokenization import code_points
from engine.errors import UserError


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
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # some begin with a mark
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            kept = len(decoder.getstate()[0])  # a character may span two blocks
            offset = file.tell() - kept
            try:
                data = file.read(block)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise MisconfigurationException(
                    f"{path} is damaged or cut off and can't be unpacked ({error}): get it anew."
                ) from error
            try:
                yield decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                offset += kept + len(data) - len(error.object)  # the mark, if it was there
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
    count, alphabet = count_characters(read_text(paths))
    if not count:
        raise MisconfigurationException(
            f"There is no text in {', '.join(map(str, paths))}: 0 characters. "
            "Name files with text in --data.files."
        )
    return count, alphabet


def count_characters(texts: Iterable[str]) -> tuple[int, str]:
    """The number of characters, and the different ones among them, sorted."""
    count = 0
    seen = np.zeros(0x110000, dtype=bool)  # one for each code point of Unicode
    for text in texts:
        count += len(text)
        seen[code_points(text)] = True
    return count, "".join(map(chr, np.flatnonzero(seen)))


def read_documents(path: Path, field: str, split_at: str | None = None) -> Iterator[Iterator[str]]:
    """The documents of a file, each piece by piece; one must be read before the next is asked for.

    Args:
        path: A text, or JSON lines if it is called `*.jsonl`; either may be packed (`*.gz`).
        field: Where a JSON line holds its text.
        split_at: What stands between two documents of a text; without it, a file is a document.
    """
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        for number, line in enumerate(_split(read_text([path]), "\n"), start=1):
            if line.strip():
                yield iter([_text_of_line(line, field, f"{path}, line {number}")])
    elif split_at is None:
        yield read_text([path])
    else:
        yield from (iter([document]) for document in _split(read_text([path]), split_at))


def _split(texts: Iterable[str], separator: str) -> Iterator[str]:
    """`text.split(separator)`, but for a text that comes in pieces."""
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split(separator)
        yield from whole
    yield rest


def json_record(line: str, where: str) -> Any:
    """Parse a JSON line.

    Raises:
        UserError: Naming the line, if it is not valid JSON, has half a character or a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{where} has the field {repeated!r} twice: remove one.")
        return record

    try:
        record = json.loads(line, object_pairs_hook=unique)
        if "\\ud" in line.lower():  # half of a surrogate pair, such as a truncated emoji
            json.dumps(record, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not valid JSON: {error}.") from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} has half a character, \\u{ord(error.object[error.start]):04x}: remove it."
        ) from error
    return record


def _text_of_line(line: str, field: str, where: str) -> str:
    record = json_record(line, where)
    fields = list(record) if isinstance(record, dict) else []
    if field not in fields or not isinstance(record[field], str):
        has = f"fields {', '.join(map(repr, fields))}" if fields else "no fields"
        raise MisconfigurationException(
            f"{where} holds no text under {field!r}; it has {has}. Name the right one by --field."
        )
    text: str = record[field]
    return text


def matching_files(pattern: str, flag: str = "--data.files") -> list[Path]:
    """The files that a pattern names, sorted; `flag` is where a user corrects it."""
    found = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    if not found and Path(pattern).is_file():  # a name with brackets in it is no pattern
        found = [Path(pattern)]
    if not found:
        raise MisconfigurationException(
            f"No file is named {pattern!r} (looked for from {Path.cwd()}). "
            f"Correct it in {flag}, which takes files and patterns such as 'texts/*.txt'."
        )
    return found


def read_utf8(path: Path) -> str:
    """Return the text of a UTF-8 file, unpacked if its name ends with `.gz`.

    Raises:
        UserError: If the file cannot be unpacked or decoded.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or truncated and cannot be unpacked ({error}): download or copy it "
            "again."
        ) from error
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(
            f"{path} is UTF-16, not UTF-8. Convert it, for example with: "
            f"iconv -f utf-16 -t utf-8 {path.name} > converted{path.suffix}"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = [n for n, line in enumerate(data.split(b"\n"), start=1) if not _is_utf8(line)]
        raise UserError(
            f"{path} is not UTF-8 text: line {bad[0]} contains the byte "
            f"0x{error.object[error.start]:02x} ({len(bad)} such lines). Correct or remove them, "
            "or convert the file, for example with `iconv -f latin1 -t utf-8`."
        ) from error


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
