"""Read text files of any size piece by piece, as one text or as documents."""

import codecs
import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.text.encoding import code_points
from engine.errors import UserError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_files(patterns: Sequence[str] | str, flag: str = "--data.files") -> list[Path]:
    """Return the files that match patterns: sorted within a pattern, none twice.

    Args:
        patterns: Paths or patterns with `*`, `?` and `**`; `~` is the home folder.
        flag: Option that the patterns come from, for the message.

    Raises:
        UserError: If a pattern matches no file.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern).expanduser()
        matches = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
        if not matches and path.is_file():  # a name with brackets is not a pattern
            matches = [path]
        if not matches:
            raise UserError(
                f"{flag}: no file matches {pattern!r} (searched from {Path.cwd()}). Give files or "
                "patterns such as 'texts/*.txt'."
            )
        found |= dict.fromkeys(matches)
    return list(found)


class SplitText:
    """Text files joined into one text; its last part is the validation split.

    Args:
        paths: UTF-8 files.
        val_fraction: Fraction of the characters for validation.
    """

    def __init__(self, paths: Sequence[Path], val_fraction: float) -> None:
        self.paths = paths
        self.val_fraction = val_fraction

    @cached_property
    def _survey(self) -> tuple[int, str]:
        length, alphabet = count_characters(read_text(self.paths))
        if not length:
            raise UserError(
                f"data.files: {', '.join(map(str, self.paths))} contain no text (0 characters)."
            )
        return length, alphabet

    @property
    def alphabet(self) -> str:
        """The distinct characters of both splits, sorted."""
        return self._survey[1]

    def read(self, split: str) -> Iterator[str]:
        """Return the text of `train` or `val`, piece by piece."""
        train_length = int(self._survey[0] * (1 - self.val_fraction))
        part = (0, train_length) if split == "train" else (train_length, None)
        return read_text(self.paths, *part)


def read_text(
    paths: Sequence[Path], start: int = 0, stop: int | None = None, block: int = 2**20
) -> Iterator[str]:
    """Return the characters `start` … `stop` of the joined files, piece by piece."""
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
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # skips a byte order mark
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while True:
            kept = len(decoder.getstate()[0])  # bytes of a character that spans two blocks
            offset = file.tell() - kept
            try:
                data = file.read(block)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise _damaged(path, error) from error
            if offset == 0 and data.startswith(UTF16):
                raise _utf16(path)
            try:
                yield decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                offset += kept + len(data) - len(error.object)  # without the byte order mark
                raise UserError(
                    f"{path} is not UTF-8 text: invalid byte 0x{error.object[error.start]:02x} at "
                    f"offset {offset + error.start} ({error.reason}). Convert the file, for "
                    "example with `iconv -f latin1 -t utf-8`, or leave it out."
                ) from error
            if not data:
                return


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged or truncated and cannot be unpacked ({error}): download or copy it "
        "again."
    )


def _utf16(path: Path) -> UserError:
    return UserError(
        f"{path} is UTF-16, not UTF-8. Convert it, for example with: "
        f"iconv -f utf-16 -t utf-8 {path.name} > converted{path.suffix}"
    )


def count_characters(texts: Iterable[str]) -> tuple[int, str]:
    """Return the number of characters, and the distinct ones, sorted."""
    count = 0
    seen = np.zeros(0x110000, dtype=bool)  # one per code point of Unicode
    for text in texts:
        count += len(text)
        seen[code_points(text)] = True
    return count, "".join(map(chr, np.flatnonzero(seen)))


def read_documents(path: Path, field: str, split_at: str | None = None) -> Iterator[Iterator[str]]:
    """Return the documents of a file, each piece by piece; read each before the next.

    Args:
        path: Text, or JSON lines if named `*.jsonl`; either may be compressed (`*.gz`).
        field: Key of the text in a JSON line.
        split_at: Separator of the documents of a text; without it, the file is one document.
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
    """Do `text.split(separator)` for a text that comes in pieces."""
    rest = ""
    for text in texts:
        *complete, rest = (rest + text).split(separator)
        yield from complete
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
            f"{where} contains half a character, \\u{ord(error.object[error.start]):04x}: remove "
            "it."
        ) from error
    return record


def _text_of_line(line: str, field: str, where: str) -> str:
    record = json_record(line, where)
    fields = list(record) if isinstance(record, dict) else []
    if field not in fields or not isinstance(record[field], str):
        has = f"its fields are {', '.join(map(repr, fields))}" if fields else "it has no fields"
        raise UserError(f"{where} has no text in {field!r}; {has}. Set --field to the right one.")
    text: str = record[field]
    return text


def read_utf8(path: Path) -> str:
    """Return the text of a UTF-8 file, unpacked if its name ends with `.gz`.

    Raises:
        UserError: If the file cannot be unpacked or decoded.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    if data.startswith(UTF16):
        raise _utf16(path)
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
