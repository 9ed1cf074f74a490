"""Retrieval of this project as parts of LangChain: a retriever over an index, a vector store.

from integrations.langchain_retrieval import StepladderRetriever

retriever = StepladderRetriever.open("INDEX", k=5)
retriever.invoke("How is the filter cleaned?")
"""

import hashlib
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from retrieval import documents, encoders
from retrieval.index import Index, Passage, current_version
from retrieval.indexing import check_encoder, update_index
from retrieval.retriever import Retriever

PROBE = "the vector of this text identifies an encoder"


class StepladderRetriever(BaseRetriever):
    """The passages that `rag.py ask` reads, as documents.

    The metadata of a document are those of the passage's document, and `source`, `start`, `end`,
    `heading` and `score` of the passage.

    Args:
        retriever: A retriever over an index folder or a Qdrant collection.
        k: Number of documents.
    """

    retriever: Any
    k: int = 5

    @classmethod
    def open(cls, folder: str | Path, k: int = 5) -> "StepladderRetriever":
        """Open an index folder with the encoder that it was made with.

        Raises:
            UserError: If the folder is not an index, or the encoder has changed.
        """
        index = Index.open(folder)
        encoder = encoders.SentenceVectors(index.manifest["encoder"]["source"])
        check_encoder(index, encoder, folder)
        return cls(retriever=Retriever(index, encoder), k=k)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_document(passage) for passage in self.retriever.search(query, k or self.k)]


def _document(passage: Passage) -> Document:
    place = {"source": passage.document, "start": passage.start, "end": passage.end}
    place |= {"heading": passage.heading, "score": passage.score}
    identity = f"{passage.document}#{passage.start}"
    return Document(id=identity, page_content=passage.text, metadata=passage.metadata | place)


class EmbeddingsEncoder:
    """Embeddings of LangChain as the encoder of an index.

    Args:
        embeddings: The embeddings.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self.source = type(embeddings).__name__
        self.tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # counts words
        self.tokenizer.pre_tokenizer = Whitespace()
        vector = np.round(self.encode([PROBE]), 4)
        self.fingerprint = hashlib.sha256(vector.tobytes()).hexdigest()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector of norm 1 per text, (N, D) float32."""
        vectors = np.array(self.embeddings.embed_documents(list(texts)), dtype=np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norms, 1e-12)


class StepladderVectorStore(VectorStore):
    """Documents in an index folder, ranked by their vectors and words.

    Each change writes a new version of the index, so that readers are not disturbed: add many
    documents at once. A document is found by the best of its chunks and returned as it was added.

    Args:
        folder: The index folder; created with the first documents.
        embedding: Embeddings of the documents and queries.

    Raises:
        UserError: If the folder was made with other embeddings.
    """

    def __init__(self, folder: str | Path, embedding: Embeddings) -> None:
        self.folder = Path(folder)
        self.embedding = embedding
        self.encoder = EmbeddingsEncoder(embedding)
        self._open()

    @property
    def embeddings(self) -> Embeddings:
        return self.embedding

    def _open(self) -> None:
        self.index = Index.open(self.folder) if current_version(self.folder) else None
        if self.index is not None:
            check_encoder(self.index, self.encoder, self.folder)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> "StepladderVectorStore":
        """Return a store with texts.

        Args:
            texts: The texts.
            embedding: Embeddings of the texts and queries.
            metadatas: Plain values of each text.
            ids: Names of the texts; of equal names the last one counts.
            **kwargs: `folder`, the index folder.
        """
        store = cls(embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, or replace those of the same ids; return the ids."""
        texts = list(texts)
        metadatas = metadatas or [{} for _ in texts]
        names = [name or uuid.uuid4().hex for name in ids or [""] * len(texts)]
        given = {
            name: documents.Document(name, text, metadata)
            for name, text, metadata in zip(names, texts, metadatas, strict=True)
        }
        if given:
            update_index(self.folder, given.values(), self.encoder, keep=True)
            self._open()
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete the texts of ids, or all texts."""
        if self.index is None:
            return True
        names = [stored["name"] for stored in self.index.documents]
        kept = [n for n, name in enumerate(names) if ids is not None and name not in {*ids}]
        if not kept:
            (self.folder / "CURRENT").unlink()
            shutil.rmtree(self.folder / "versions")
        elif len(kept) < len(names):
            update_index(self.folder, map(self._stored, kept), self.encoder)
        self._open()
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the texts of ids; missing ones are left out."""
        found = [] if self.index is None else self.index.documents
        return [self._returned(n) for n, stored in enumerate(found) if stored["name"] in {*ids}]

    def _stored(self, number: int) -> documents.Document:
        assert self.index is not None
        stored = self.index.documents[number]
        return documents.Document(stored["name"], self.index.text(number), stored["metadata"])

    def _returned(self, number: int) -> Document:
        stored = self._stored(number)
        return Document(id=stored.name, page_content=stored.text, metadata=stored.metadata)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` texts that fit a query best, the best first."""
        return [document for document, _ in self.similarity_search_with_score(query, k)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the `k` texts that fit a query best, with their scores (higher is better)."""
        if self.index is None:
            return []
        ranking = Retriever(self.index, self.encoder).rank(query)
        numbers = self.index.chunks["document"][ranking.rows].tolist()
        best: dict[int, float] = {}
        for number, score in zip(numbers, ranking.scores.tolist(), strict=True):
            best.setdefault(number, score)
        return [(self._returned(number), score) for number, score in [*best.items()][:k]]
