"""An index folder, opened for reading: documents, chunks, vectors and words of one version.

    INDEX/CURRENT               name of the current version
    INDEX/lock                  held while the index is changed
    INDEX/partial/              vectors of an unfinished update
    INDEX/versions/000001/      manifest.json with settings, encoder and checksums; texts.txt,
                                documents.jsonl, chunks.npy, sentences.npy, vectors and BM25

All arrays are memory-mapped. A version never changes; an update writes the next one.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pooch

from engine.errors import UserError
from retrieval.dense import DENSE_KINDS, DenseIndex, DenseKind
from retrieval.filters import Condition, matches_all
from retrieval.ranking import Ranking, best_per_group
from retrieval.sparse import SparseIndex, WordTokenizer

FORMAT = 1
LEVELS = ("chunks", "sentences")
COMPONENTS = ("dense", "dense_sentences", "sparse", "sparse_sentences")
CHUNK = np.dtype([("document", "<i4"), ("heading", "<i4"), ("start", "<i8"), ("end", "<i8")])
SENTENCE = np.dtype([("chunk", "<i4"), ("start", "<i8"), ("end", "<i8")])
SENTENCES_PER_CHUNK = 4  # candidates of the sentence level for one of the chunk level


@dataclass(frozen=True)
class IndexSettings:
    """How documents are indexed.

    Args:
        max_tokens: Maximum number of tokens of a chunk.
        overlap: Maximum number of tokens that two successive chunks share.
        window: Sentences of a unit of the sentence level; 0: no such level.
        dense: `flat`: exact search; `hnsw`: a graph; `ivfpq`: compressed cells.
        language: Language of the stemmer.
    """

    max_tokens: int = 200
    overlap: int = 30
    window: int = 1
    dense: DenseKind = "flat"
    language: str = "english"

    def __post_init__(self) -> None:
        if self.window < 0:
            raise UserError(f"window must be at least 0, got {self.window}.")
        if self.dense not in DENSE_KINDS:
            raise UserError(f"dense must be one of {', '.join(DENSE_KINDS)}, got {self.dense!r}.")


class Query(NamedTuple):
    """A question and its vector."""

    text: str
    vector: np.ndarray  # (D,)


class Passage(NamedTuple):
    """A chunk that answers a query."""

    row: int  # of the chunk in its index
    document: str
    start: int  # offset in the document of its first character
    end: int  # offset after its last character
    text: str
    heading: str
    metadata: dict[str, Any]
    score: float = 0.0


class PassageIndex(Protocol):
    """What a retriever needs of an index: a folder, or a Qdrant collection."""

    components: tuple[str, ...]

    def rank(
        self, component: str, query: Query, k: int, conditions: tuple[Condition, ...] = ()
    ) -> Ranking:
        """Return the `k` best chunks of one component: `dense`, `sparse`, …_sentences."""

    def passages(self, ranking: Ranking) -> list[Passage]:
        """Return the chunks of a ranking with their scores."""


class Index:
    """One version of an index folder.

    Args:
        folder: Folder of the version.

    Raises:
        UserError: If a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.settings = IndexSettings(**self.manifest["settings"])
        self.levels = LEVELS if self.settings.window else LEVELS[:1]
        self.components: tuple[str, ...] = (
            COMPONENTS if self.settings.window else ("dense", "sparse")
        )
        self.headings: list[str] = json.loads((folder / "headings.json").read_text("utf-8"))
        lines = (folder / "documents.jsonl").read_text("utf-8").splitlines()
        self.documents: list[dict[str, Any]] = [json.loads(line) for line in lines]
        self.chunks = _mapped(folder / "chunks.npy")  # (N,) CHUNK
        self.sentences = _mapped(folder / "sentences.npy")  # (M,) SENTENCE
        self.texts: Any = np.memmap(folder / "texts.txt", mode="r")
        self._masks: dict[tuple[Condition, ...], np.ndarray] = {}

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> "Index":
        """Open the current version of an index.

        Args:
            folder: The index folder.
            verify: Compare all files with their checksums, else only their sizes.

        Raises:
            UserError: If there is no index, it has a newer format, or a file is damaged.
        """
        folder = Path(folder)
        for attempt in range(3):  # an update may delete the version between two steps
            version = current_version(folder)
            if version is None:
                raise UserError(
                    f"{folder} is not an index: it has no file CURRENT. Make one with "
                    f"python rag.py index DOCUMENTS --output {folder}."
                )
            try:
                check_files(version, verify)
                return cls(version)
            except FileNotFoundError as error:
                if attempt == 2:
                    raise UserError(
                        f"{error.filename} is missing: delete {folder} and index again."
                    ) from error
        raise AssertionError("unreachable")

    @cached_property
    def words(self) -> WordTokenizer:
        """The words of the BM25 level."""
        return WordTokenizer(self.settings.language)

    @cached_property
    def sparse(self) -> dict[str, SparseIndex]:
        """BM25 of chunks and of sentences."""
        return {n: SparseIndex.open(self.folder / f"bm25_{n}", self.words) for n in self.levels}

    @cached_property
    def dense(self) -> dict[str, DenseIndex]:
        """The vectors of chunks and of sentences."""
        return {
            name: DenseIndex.open(self.folder / f"{name}.faiss", self.vectors(name))
            for name in self.levels
        }

    def vectors(self, level: str) -> np.ndarray:
        """Return the vectors of `chunks` or `sentences`, (N, D) float32."""
        return _mapped(self.folder / f"{level}_vectors.npy")

    def rank(
        self, component: str, query: Query, k: int, conditions: tuple[Condition, ...] = ()
    ) -> Ranking:
        """Return the `k` best chunks of a component.

        Args:
            component: `dense` or `sparse` ranks chunks; `dense_sentences` or `sparse_sentences`
                ranks them by the best of their sentences.
            query: The question.
            k: At least 1.
            conditions: Conditions on the documents.
        """
        kind, _, level = component.partition("_")
        by_sentence = level == "sentences"
        allowed = self._allowed(conditions) if conditions else None
        owners = self.sentences["chunk"] if by_sentence else None
        if allowed is not None and owners is not None:
            allowed = allowed[owners]
        name, count = ("sentences", k * SENTENCES_PER_CHUNK) if by_sentence else ("chunks", k)
        if kind == "dense":
            found = self.dense[name].search(query.vector, count, allowed)
        else:
            found = self.sparse[name].search(query.text, count, allowed)
        return found if owners is None else best_per_group(found, owners).top(k)

    def _allowed(self, conditions: tuple[Condition, ...]) -> np.ndarray:
        """Return which chunks are of documents that meet the conditions, (N,) bool."""
        if conditions not in self._masks:
            documents = [matches_all(conditions, d["name"], d["metadata"]) for d in self.documents]
            self._masks = {conditions: np.array(documents)[self.chunks["document"]]}
        return self._masks[conditions]

    def passages(self, ranking: Ranking) -> list[Passage]:
        """Return the chunks of a ranking with their scores."""
        return [
            self.passage(int(row), float(score))
            for row, score in zip(ranking.rows, ranking.scores, strict=True)
        ]

    def passage(self, row: int, score: float = 0.0) -> Passage:
        """Return a chunk."""
        number, heading, start, end = self.chunks[row].tolist()
        document = self.documents[number]
        text = self.text(number)[start:end]
        place = (document["name"], start, end, text, self.headings[heading])
        return Passage(row, *place, document["metadata"], score)

    def sentence(self, row: int) -> tuple[str, int, int, str]:
        """Return document, start, end and text of a sentence."""
        chunk, start, end = self.sentences[row].tolist()
        number = int(self.chunks["document"][chunk])
        return self.documents[number]["name"], start, end, self.text(number)[start:end]

    def text(self, document: int) -> str:
        """Return the text of a document."""
        start, end = self.documents[document]["bytes"]
        return bytes(self.texts[start:end]).decode("utf-8")

    def chunk_range(self, document: int) -> slice:
        """Return the rows of the chunks of a document."""
        return slice(*np.searchsorted(self.chunks["document"], [document, document + 1]).tolist())

    def sentence_range(self, chunks: slice) -> slice:
        """Return the rows of the sentences of successive chunks."""
        bounds = [chunks.start, chunks.stop]
        return slice(*np.searchsorted(self.sentences["chunk"], bounds).tolist())


def current_version(folder: Path) -> Path | None:
    """Return the folder of the current version of an index, or None if there is no index."""
    pointer = folder / "CURRENT"
    if not pointer.is_file():
        return None
    return folder / "versions" / pointer.read_text("utf-8").strip()


def check_files(version: Path, verify: bool) -> None:
    """Compare the files of a version with its manifest.

    Raises:
        UserError: If a file is damaged, or the format is newer than this program.
        FileNotFoundError: If a file is missing.
    """
    manifest = json.loads((version / "manifest.json").read_text("utf-8"))
    remedy = f"delete the folder {version.parent.parent} and index again"
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{version} has the format {manifest['format']}, this program reads {FORMAT}: {remedy}."
        )
    for name, (size, checksum) in manifest["files"].items():
        path = version / name
        damaged = path.stat().st_size != size
        if damaged or (verify and pooch.file_hash(str(path), "sha256") != checksum):
            raise UserError(f"{path} is damaged: it does not match its checksum; {remedy}.")


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
