"""Read documents: text, Markdown, HTML, PDF, JSON lines and tables, from files and folders."""

import codecs
import glob
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.loading.tables import read_records
from engine.errors import UserError
from retrieval.formats import UnreadableError, html_to_text, pdf_to_text

TEXT = (".txt", ".text", ".md", ".markdown", ".rst")
HTML = (".html", ".htm", ".xhtml")
TABLES = (".jsonl", ".csv", ".tsv")
SUFFIXES = (*TEXT, *HTML, ".pdf", *TABLES)
TEXT_FIELDS = ("text", "content", "contents", "body")
NAME_FIELDS = ("id", "_id", "name")
MARKS = {  # byte order marks; that of UTF-32 starts with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Document:
    """A text with a unique name.

    Args:
        name: Path as it was found; `FILE#ID` for a row of a table.
        text: What is indexed; all offsets refer to it.
        metadata: Plain values by which passages can be filtered.
    """

    name: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of text and metadata, in hexadecimal."""
        content = json.dumps([self.text, self.metadata], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class Skipped(NamedTuple):
    """A file or a row that could not be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Limits:
    """Bounds on what a file may contain; a larger one is skipped.

    Args:
        file_bytes: Bytes of a file.
        characters: Characters of a document.
        pdf_pages: Pages of a PDF.
        pdf_objects: Objects of a PDF.
        pdf_stream_bytes: Bytes of a stream of a PDF after decompression.
    """

    file_bytes: int = 200_000_000
    characters: int = 20_000_000
    pdf_pages: int = 2_000
    pdf_objects: int = 500_000
    pdf_stream_bytes: int = 50_000_000


def read_documents(
    sources: Sequence[str | Path], limits: Limits | None = None
) -> Iterator[Document | Skipped]:
    """Yield the documents of files, folders and patterns; what cannot be read as Skipped.

    A folder contributes its files and those of its subfolders, except hidden ones. Text is UTF-8,
    UTF-16 or UTF-32 with a byte order mark, else Windows-1252 where that gives no control
    characters. Each row of a table is a document: its text is the field `text`, `content` or
    `body` after the field `title`, else all fields; the others are metadata. Nothing is executed
    and no address is opened.

    Args:
        sources: Paths or patterns with `*`, `?` and `**`.
        limits: Bounds on files.

    Raises:
        UserError: If a source does not exist.
    """
    limits = limits or Limits()
    seen: set[Path] = set()
    for source in sources:
        for path in _find(str(source)):
            if (resolved := path.resolve()) in seen:
                continue
            seen.add(resolved)
            try:
                yield from _read(path, limits)
            except UnreadableError as error:
                yield Skipped(path.as_posix(), str(error))
            except OSError as error:
                yield Skipped(path.as_posix(), error.strerror or str(error))


def _find(source: str) -> list[Path]:
    if "://" in source:
        raise UserError(f"{source}: addresses are not opened; download the file and name its path.")
    path = Path(source).expanduser()
    if path.is_dir():
        found = (p for p in path.rglob("*") if p.is_file())
        visible = [p for p in found if not any(n[0] == "." for n in p.relative_to(path).parts)]
        return sorted(visible)
    if path.is_file():
        return [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not matches:
        raise UserError(
            f"no file or folder matches {source!r} (searched from {Path.cwd()}): correct its name."
        )
    return [p for p in matches if p.is_file()]


def _read(path: Path, limits: Limits) -> Iterator[Document | Skipped]:
    name, suffix = path.as_posix(), path.suffix.lower()
    if path.name.lower().removesuffix(".gz").endswith(TABLES):
        suffix = ".jsonl"
    elif suffix not in SUFFIXES:
        raise UnreadableError(f"unknown format {suffix!r}: {', '.join(SUFFIXES)} are read")
    if (size := path.stat().st_size) > limits.file_bytes:
        raise UnreadableError(f"{size:,} bytes exceed the limit of {limits.file_bytes:,}")
    if suffix in TABLES:
        documents = _read_table(path)
    elif suffix in HTML:
        text, title = html_to_text(path.read_bytes())
        documents = iter([Document(name, text, {"title": title} if title else {})])
    elif suffix == ".pdf":
        text, title = pdf_to_text(
            path, limits.pdf_pages, limits.pdf_objects, limits.pdf_stream_bytes, limits.characters
        )
        documents = iter([Document(name, text, {"title": title} if title else {})])
    else:
        documents = iter([Document(name, decode(path.read_bytes()))])
    for document in documents:
        if isinstance(document, Document):
            if not document.text.strip():
                document = Skipped(document.name, "no text")
            elif len(document.text) > limits.characters:
                count, limit = len(document.text), limits.characters
                reason = f"{count:,} characters exceed the limit of {limit:,}"
                document = Skipped(document.name, reason)
        yield document


def decode(data: bytes) -> str:
    """Return the text of a file, with its line ends.

    Raises:
        UnreadableError: If it is not text.
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    for candidate in [encoding] if encoding else ["utf-8", "cp1252"]:
        try:
            text = data.decode(candidate)
        except UnicodeError:
            continue
        if not any(ord(c) < 32 and c not in "\t\n\r\f\v\x1b" for c in set(text)):
            return text
    raise UnreadableError(f"not text in {encoding or 'UTF-8 or Windows-1252'}")


def _read_table(path: Path) -> Iterator[Document | Skipped]:
    try:
        for number, (where, record) in enumerate(read_records(path), start=1):
            if isinstance(record, UserError):
                yield Skipped(where, str(record))
            else:
                yield _document_of_record(f"{path.as_posix()}#", number, dict(record))
    except UserError as error:
        raise UnreadableError(str(error)) from error


def _document_of_record(prefix: str, number: int, record: dict[str, Any]) -> Document:
    values = {name: value for name, value in record.items() if value not in (None, "")}
    key = next((str(values[name]) for name in NAME_FIELDS if name in values), str(number))
    body = next((name for name in TEXT_FIELDS if isinstance(values.get(name), str)), None)
    if body is None:
        text = "\n".join(f"{name}: {value}" for name, value in values.items())
    else:
        title = values.get("title")
        text = f"{title}\n\n{values[body]}" if isinstance(title, str) else values[body]
    metadata = {
        name: value
        for name, value in values.items()
        if name != body and isinstance(value, str | int | float | bool) and body is not None
    }
    return Document(prefix + key, text, metadata)
