"""Create and update an index folder: atomically, incrementally, one process at a time."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pooch
from filelock import FileLock, Timeout

from engine.errors import UserError
from retrieval.chunks import Chunk, ChunkSplitter, Span, windows
from retrieval.dense import DenseIndex
from retrieval.documents import Document, Skipped
from retrieval.encoders import Encoder
from retrieval.index import CHUNK, FORMAT, LEVELS, SENTENCE, Index, IndexSettings, current_version
from retrieval.sparse import SparseIndex, WordTokenizer

GROUP = 32  # documents whose vectors an interrupted update keeps together


@dataclasses.dataclass
class Report:
    """What an update did."""

    added: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    chunks: int = 0
    folder: Path | None = None


class Encoded(NamedTuple):
    """A document with its chunks and vectors."""

    document: Document
    chunks: list[Chunk]
    windows: list[tuple[int, Span]]  # number of the chunk, and the span of its sentences
    vectors: np.ndarray  # (chunks + windows, D)


def update_index(
    folder: str | Path,
    documents: Iterable[Document | Skipped],
    encoder: Encoder,
    settings: IndexSettings | None = None,
    keep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Make an index contain the given documents.

    Documents with equal text and metadata keep their vectors; the others are encoded. The new
    version replaces the former one in one step, and the former one is deleted with all texts that
    are no longer indexed. An interrupted update leaves the former version, and continues with the
    vectors that it had computed when it is repeated.

    Args:
        folder: The index; created where it does not exist.
        documents: The documents; of equal names the first counts.
        encoder: Encoder of the vectors.
        settings: How documents are indexed; by default as the index is, or the defaults.
        keep: Keep documents of the index that are not given, instead of deleting them.
        progress: Called with the number of encoded documents and that of all.

    Raises:
        UserError: If another process updates the index, it has another encoder or other settings,
            no document can be read, or a file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            return _update(folder, documents, encoder, settings, keep, progress)
    except Timeout as error:
        raise UserError(
            f"{folder} is being indexed by another process: wait until it has finished."
        ) from error
    except OSError as error:
        raise UserError(f"cannot write the index {folder}: {error}.") from error


def _update(
    folder: Path,
    documents: Iterable[Document | Skipped],
    encoder: Encoder,
    settings: IndexSettings | None,
    keep: bool,
    progress: Callable[[int, int], None] | None,
) -> Report:
    old = Index.open(folder) if current_version(folder) else None
    if old is not None:
        check_encoder(old, encoder, folder)
        if settings is not None and settings != old.settings:
            raise UserError(
                f"{folder} was made with {old.settings}, not {settings}: delete the folder, or "
                "choose another one."
            )
        settings = old.settings
    settings = settings or IndexSettings()
    report = Report()
    given = _collect(documents, report)
    known = {} if old is None else {d["name"]: n for n, d in enumerate(old.documents)}
    _count_changes(report, given, known, old)
    if old is not None and keep:
        report.unchanged += report.deleted
        report.deleted = 0
        for name, number in known.items():
            if name not in given:
                given[name] = Document(name, old.text(number), old.documents[number]["metadata"])
    if not given:
        raise UserError("there is no document to index" + _first_reasons(report.skipped))
    ordered = [given[name] for name in sorted(given)]
    encoded = _encode_all(ordered, encoder, settings, old, folder / "partial", progress)
    report.chunks = sum(len(one.chunks) for one in encoded)
    report.folder = folder
    changed = report.added or report.updated or report.deleted or old is None
    if changed:
        _write_version(folder, encoded, encoder, settings)
    shutil.rmtree(folder / "partial", ignore_errors=True)
    return report


def check_encoder(index: Index, encoder: Encoder, folder: Path | str) -> None:
    """Check that an index was made with an encoder.

    Raises:
        UserError: If its vectors are those of another one.
    """
    made_with = index.manifest["encoder"]
    if made_with["fingerprint"] != encoder.fingerprint:
        raise UserError(
            f"{folder} was made with the encoder {made_with['source']}, whose vectors differ from "
            f"those of {encoder.source}: use that encoder, or index again in another folder."
        )


def _collect(documents: Iterable[Document | Skipped], report: Report) -> dict[str, Document]:
    given: dict[str, Document] = {}
    for one in documents:
        if isinstance(one, Skipped):
            report.skipped.append(one)
        elif one.name in given:
            report.skipped.append(Skipped(one.name, "a document of the same name was read before"))
        else:
            given[one.name] = one
    return given


def _first_reasons(skipped: Sequence[Skipped]) -> str:
    shown = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
    return f" ({len(skipped):,} skipped: {shown})." if skipped else "."


def _count_changes(
    report: Report, given: dict[str, Document], known: dict[str, int], old: Index | None
) -> None:
    for name, document in given.items():
        if name not in known:
            report.added += 1
        elif old is not None and old.documents[known[name]]["digest"] == document.digest:
            report.unchanged += 1
        else:
            report.updated += 1
    report.deleted = len(known.keys() - given.keys())


# Vectors: those of the former version, of an interrupted update, or new ones.


def _encode_all(
    documents: Sequence[Document],
    encoder: Encoder,
    settings: IndexSettings,
    old: Index | None,
    partial: Path,
    progress: Callable[[int, int], None] | None,
) -> list[Encoded]:
    splitter = ChunkSplitter(encoder.tokenizer, settings.max_tokens, settings.overlap)
    stored = {} if old is None else {d["digest"]: n for n, d in enumerate(old.documents)}
    split = {one.name: _split(one, splitter, settings.window) for one in documents}
    vectors: dict[str, np.ndarray] = {}
    new = []
    for document in documents:
        if old is not None and document.digest in stored:
            vectors[document.name] = _stored_vectors(old, stored[document.digest])
        else:
            new.append(document)
    prefix = f"{encoder.fingerprint} {settings}"
    for first in range(0, len(new), GROUP):
        group = new[first : first + GROUP]
        key = hashlib.sha256("\n".join([prefix, *(one.digest for one in group)]).encode())
        path = partial / f"{key.hexdigest()}.npy"
        texts = [_texts(one, *split[one.name]) for one in group]
        if path.is_file():
            rows = np.load(path, allow_pickle=False)
        else:
            # Document by document: the vectors then do not depend on the others of an update.
            # Chunks apart from sentences, which padding to the length of a chunk would slow down.
            counts = [len(split[one.name][0]) for one in group]
            pairs = zip(texts, counts, strict=True)
            parts = [part for one, count in pairs for part in (one[:count], one[count:]) if part]
            rows = np.concatenate([encoder.encode(part) for part in parts])
            partial.mkdir(exist_ok=True)
            _write_atomically(path, rows)
        ends = np.cumsum([len(one) for one in texts])[:-1]
        vectors |= zip((one.name for one in group), np.split(rows, ends), strict=True)
        if progress is not None:
            progress(min(first + GROUP, len(new)), len(new))
    return [Encoded(one, *split[one.name], vectors[one.name]) for one in documents]


def _split(
    document: Document, splitter: ChunkSplitter, window: int
) -> tuple[list[Chunk], list[tuple[int, Span]]]:
    chunks = splitter.split(document.text)
    units = [
        (number, span)
        for number, chunk in enumerate(chunks)
        for span in (windows(chunk.sentences, window) if window else ())
    ]
    return chunks, units


def _texts(
    document: Document, chunks: Sequence[Chunk], units: Sequence[tuple[int, Span]]
) -> list[str]:
    return [chunk_text(document.text[c.start : c.end], c.heading) for c in chunks] + [
        document.text[start:end] for _, (start, end) in units
    ]


def chunk_text(text: str, heading: str) -> str:
    """Return what is indexed of a chunk: its headings and its text."""
    return f"{heading}\n{text}" if heading else text


def _stored_vectors(index: Index, document: int) -> np.ndarray:
    chunks = index.chunk_range(document)
    parts = [index.vectors("chunks")[chunks]]
    if index.settings.window:
        parts.append(index.vectors("sentences")[index.sentence_range(chunks)])
    return np.concatenate(parts)


def _write_atomically(path: Path, rows: np.ndarray) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, rows)
    part.replace(path)


# The files of a version.


def _write_version(
    folder: Path, encoded: Sequence[Encoded], encoder: Encoder, settings: IndexSettings
) -> None:
    versions = folder / "versions"
    former = current_version(folder)
    number = 1 if former is None else int(former.name) + 1
    part = versions / f"{number:06d}.part"
    for leftover in versions.glob("*.part"):
        shutil.rmtree(leftover)
    part.mkdir(parents=True)
    _write_documents(part, encoded)
    levels = LEVELS if settings.window else LEVELS[:1]
    words = WordTokenizer(settings.language)
    for level in levels:
        texts, vectors = _level(encoded, level)
        np.save(part / f"{level}_vectors.npy", vectors)
        DenseIndex.build(vectors, settings.dense).save(part / f"{level}.faiss")
        SparseIndex.build(texts, words).save(part / f"bm25_{level}")
    manifest = {
        "format": FORMAT,
        "encoder": {"source": encoder.source, "fingerprint": encoder.fingerprint},
        "settings": dataclasses.asdict(settings),
        "documents": len(encoded),
        "files": _checksums(part),
    }
    _write_text(part / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    for path in (*part.rglob("*"), part):
        _sync(path)
    target = versions / f"{number:06d}"
    if target.exists():  # written, but not made current before an interruption
        shutil.rmtree(target)
    part.rename(target)
    _sync(versions)
    _write_text(folder / "CURRENT.part", f"{target.name}\n")
    _sync(folder / "CURRENT.part")
    (folder / "CURRENT.part").replace(folder / "CURRENT")
    _sync(folder)
    for path in versions.iterdir():
        if path != target:
            shutil.rmtree(path)


def _write_documents(part: Path, encoded: Sequence[Encoded]) -> None:
    """Write texts, documents, headings, and the tables of chunks and sentences."""
    headings: dict[str, int] = {}
    chunks: list[tuple[int, int, int, int]] = []
    sentences, position = [], 0
    with (part / "texts.txt").open("wb") as texts, (part / "documents.jsonl").open("wb") as lines:
        for number, (document, parts, units, _) in enumerate(encoded):
            data = document.text.encode()
            record = {
                "name": document.name,
                "digest": document.digest,
                "bytes": [position, position + len(data)],
                "metadata": document.metadata,
            }
            texts.write(data)
            lines.write(json.dumps(record).encode() + b"\n")
            position += len(data)
            first = len(chunks)
            for chunk in parts:
                heading = headings.setdefault(chunk.heading, len(headings))
                chunks.append((number, heading, chunk.start, chunk.end))
            sentences += [(first + chunk, *span) for chunk, span in units]
    _write_text(part / "headings.json", json.dumps(list(headings)))
    np.save(part / "chunks.npy", np.array(chunks, CHUNK))
    np.save(part / "sentences.npy", np.array(sentences, SENTENCE))


def _level(encoded: Sequence[Encoded], level: str) -> tuple[list[str], np.ndarray]:
    """Return the texts and vectors of all chunks, or of all sentences."""
    texts: list[str] = []
    vectors = []
    for document, chunks, units, rows in encoded:
        found = _texts(document, chunks, units)
        part = slice(len(chunks)) if level == "chunks" else slice(len(chunks), None)
        texts += found[part]
        vectors.append(rows[part])
    return texts, np.concatenate(vectors).astype(np.float32)


def _checksums(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file of a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_size,
            pooch.file_hash(str(path), "sha256"),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Write a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settings_from(values: dict[str, Any]) -> IndexSettings:
    """Return settings from plain values.

    Raises:
        UserError: If a name is unknown.
    """
    known = {field.name for field in dataclasses.fields(IndexSettings)}
    if unknown := sorted(values.keys() - known):
        raise UserError(
            f"unknown setting {unknown[0]!r} of an index; choose of {', '.join(sorted(known))}."
        )
    return IndexSettings(**values)
