"""The index of many machines: chunks and sentences in collections of a Qdrant server.

`QdrantClient(path=FOLDER)` runs in this process, `QdrantClient(url=…)` is a client of a server;
both answer like an index folder, apart from the server's approximate search.
"""

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.errors import UserError
from retrieval.chunks import ChunkSplitter, windows
from retrieval.documents import Document, Skipped
from retrieval.encoders import Encoder
from retrieval.filters import Condition
from retrieval.index import COMPONENTS, SENTENCES_PER_CHUNK, IndexSettings, Passage, Query
from retrieval.indexing import Report, chunk_text
from retrieval.ranking import Ranking, best_per_group, rank
from retrieval.sparse import WordTokenizer

K1, B = 0.9, 0.4  # as retrieval.sparse
BATCH = 256  # points of a request


class QdrantIndex:
    """Chunks in the collection `name` and, with a sentence level, sentences in `name_sentences`.

    BM25 is a sparse vector: the server multiplies the weights of a chunk's words by their inverse
    document frequencies. Lengths are normalized by `mean_words`, since the true mean changes with
    every update.

    Args:
        client: A `qdrant_client.QdrantClient`.
        name: Name of the collections, which are created where they do not exist.
        encoder: Encoder of the vectors.
        settings: How documents are indexed; `dense` is the server's matter.
        mean_words: Expected number of stems of a chunk; for sentences divided by the number of
            sentences that make up a chunk, 5.

    Raises:
        UserError: If the collection was made with another encoder or other settings.
    """

    def __init__(
        self,
        client: Any,
        name: str,
        encoder: Encoder,
        settings: IndexSettings | None = None,
        mean_words: float = 80.0,
    ) -> None:
        self.client = client
        self.encoder = encoder
        self.settings = settings or IndexSettings()
        self.words = WordTokenizer(self.settings.language)
        self.components = COMPONENTS if self.settings.window else ("dense", "sparse")
        self.collections = {"chunks": name}
        if self.settings.window:
            self.collections["sentences"] = f"{name}_sentences"
        self.mean_words = {"chunks": mean_words, "sentences": mean_words / 5}
        made_with = f"{encoder.fingerprint} {self.settings} {mean_words}"
        for collection in self.collections.values():
            self._create(collection, made_with)

    def _create(self, collection: str, made_with: str) -> None:
        from qdrant_client import models

        if self.client.collection_exists(collection):
            metadata = self.client.get_collection(collection).config.metadata or {}
            if metadata.get("made_with") != made_with:
                raise UserError(
                    f"the collection {collection} was made with another encoder or other settings: "
                    "use those, or another name."
                )
            return
        dim = self.encoder.encode(["size"]).shape[1]
        self.client.create_collection(
            collection,
            vectors_config={"dense": models.VectorParams(size=dim, distance=models.Distance.DOT)},
            sparse_vectors_config={
                "sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)
            },
            metadata={"made_with": made_with},
        )

    def update(self, documents: Iterable[Document | Skipped], keep: bool = False) -> Report:
        """Make the index contain the given documents; see `retrieval.indexing.update_index`.

        Document by document: an interrupted update is continued by repeating it.
        """
        report = Report()
        known = self._known()
        splitter = ChunkSplitter(
            self.encoder.tokenizer, self.settings.max_tokens, self.settings.overlap
        )
        seen = set()
        for document in documents:
            if isinstance(document, Skipped):
                report.skipped.append(document)
                continue
            seen.add(document.name)
            if known.get(document.name) == document.digest:
                report.unchanged += 1
                continue
            report.updated += document.name in known
            report.added += document.name not in known
            self._delete(document.name)
            self._insert(document, splitter)
        if not keep:
            for name in known.keys() - seen:
                self._delete(name)
                report.deleted += 1
        report.chunks = self.client.count(self.collections["chunks"]).count
        return report

    def _known(self) -> dict[str, str]:
        """Return the digests of the indexed documents, which their last chunk holds."""
        from qdrant_client import models

        last = models.FieldCondition(key="complete", match=models.MatchValue(value=True))
        found: dict[str, str] = {}
        offset = None
        while True:
            points, offset = self.client.scroll(
                self.collections["chunks"],
                models.Filter(must=[last]),
                limit=BATCH,
                offset=offset,
                with_payload=["document", "digest"],
            )
            found |= {p.payload["document"]: p.payload["digest"] for p in points}
            if offset is None:
                return found

    def _delete(self, name: str) -> None:
        from qdrant_client import models

        same = models.FieldCondition(key="document", match=models.MatchValue(value=name))
        for collection in self.collections.values():
            selector = models.FilterSelector(filter=models.Filter(must=[same]))
            self.client.delete(collection, selector)

    def _insert(self, document: Document, splitter: ChunkSplitter) -> None:
        """Insert sentences first: a document is complete with its last chunk."""
        chunks = splitter.split(document.text)
        shared = {"document": document.name, "metadata": document.metadata}
        keys = [_point(document, number) for number in range(len(chunks))]
        if self.settings.window:
            units = [
                (key, span)
                for key, chunk in zip(keys, chunks, strict=True)
                for span in windows(chunk.sentences, self.settings.window)
            ]
            texts = [document.text[start:end] for _, (start, end) in units]
            payloads = [{**shared, "chunk": key} for key, _ in units]
            sentence_keys = [_point(document, number, "sentence") for number in range(len(units))]
            self._upsert("sentences", sentence_keys, texts, payloads)
        parts = [document.text[chunk.start : chunk.end] for chunk in chunks]
        payloads = [
            {**shared, "start": c.start, "end": c.end, "heading": c.heading, "text": part}
            for c, part in zip(chunks, parts, strict=True)
        ]
        payloads[-1] |= {"complete": True, "digest": document.digest}
        texts = [chunk_text(part, c.heading) for c, part in zip(chunks, parts, strict=True)]
        self._upsert("chunks", keys, texts, payloads)

    def _upsert(
        self, level: str, keys: Sequence[int], texts: Sequence[str], payloads: Sequence[Any]
    ) -> None:
        from qdrant_client import models

        vectors = self.encoder.encode(texts)
        points = [
            models.PointStruct(
                id=key,
                payload=payload,
                vector={"dense": vector.tolist(), "sparse": self._weights(stems, level)},
            )
            for key, payload, vector, stems in zip(
                keys, payloads, vectors, self.words(texts), strict=True
            )
        ]
        for start in range(0, len(points), BATCH):
            self.client.upsert(self.collections[level], points[start : start + BATCH])

    def _weights(self, stems: Sequence[str], level: str) -> Any:
        """Return BM25's weights of a text's words, without the inverse document frequency."""
        from qdrant_client import models

        norm = K1 * (1 - B + B * len(stems) / self.mean_words[level])
        counts = Counter(map(_word_id, stems))
        values = [count / (count + norm) for count in counts.values()]
        return models.SparseVector(indices=list(counts), values=values)

    def rank(
        self, component: str, query: Query, k: int, conditions: tuple[Condition, ...] = ()
    ) -> Ranking:
        """Return the `k` best chunks of a component; see `retrieval.index.Index.rank`."""
        from qdrant_client import models

        kind, _, level = component.partition("_")
        collection = self.collections[level or "chunks"]
        if kind == "dense":
            vector: Any = query.vector.tolist()
        else:
            words = sorted(set(map(_word_id, self.words([query.text])[0])))
            vector = models.SparseVector(indices=words, values=[1.0] * len(words))
        found = self.client.query_points(
            collection,
            query=vector,
            using=kind,
            limit=k * SENTENCES_PER_CHUNK if level else k,
            query_filter=_filter(conditions),
            with_payload=["chunk"],
        ).points
        scores = np.array([point.score for point in found], np.float64)
        if not level:
            return rank(np.array([point.id for point in found], np.int64), scores)
        owners = np.array([point.payload["chunk"] for point in found], np.int64)
        ranked = Ranking(np.arange(len(found)), scores)
        return best_per_group(ranked, owners).top(k)

    def passages(self, ranking: Ranking) -> list[Passage]:
        """Return the chunks of a ranking with their scores."""
        rows = ranking.rows.tolist()
        found = {p.id: p.payload for p in self.client.retrieve(self.collections["chunks"], rows)}
        names = ("document", "start", "end", "text", "heading", "metadata")
        return [
            Passage(row, **{name: found[row][name] for name in names}, score=score)
            for row, score in zip(rows, ranking.scores.tolist(), strict=True)
        ]


def _point(document: Document, number: int, kind: str = "chunk") -> int:
    """Return the id of a chunk or sentence, the same in every update."""
    name = f"{kind} {number} {document.digest} {document.name}"
    return uuid.uuid5(uuid.NAMESPACE_URL, name).int >> 65  # a positive int64


def _word_id(stem: str) -> int:
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:4], "little")


def _filter(conditions: Sequence[Condition]) -> Any:
    """Translate conditions; patterns have no equal here.

    Raises:
        UserError: If a condition has no equal.
    """
    from qdrant_client import models

    if not conditions:
        return None
    bounds = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
    must: list[Any] = []
    must_not: list[Any] = []
    for key, relation, value in conditions:
        path = key if key == "document" else f"metadata.{key}"
        try:
            number = float(value)
        except ValueError:
            number = None
        if relation in bounds and number is not None:
            limit = models.Range(**{bounds[relation]: number})
            must.append(models.FieldCondition(key=path, range=limit))
        elif relation in bounds or "*" in value:
            raise UserError(
                f"--where {key}{relation}{value}: a Qdrant collection has no order of texts and no "
                "patterns."
            )
        else:
            equal: list[Any] = [
                models.FieldCondition(key=path, match=models.MatchValue(value=value))
            ]
            if number is not None:
                limit = models.Range(gte=number, lte=number)
                equal.append(models.FieldCondition(key=path, range=limit))
            (must if relation == "=" else must_not).append(models.Filter(should=equal))
            if relation == "!=":  # a document without the key does not match
                empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
                must_not.append(empty)
    return models.Filter(must=must or None, must_not=must_not or None)
