"""Speed of an index of 100,000 chunks: `python -m benchmarks.retrieval`.

The chunks are runs of sentences drawn from the documentation and from Python's documentation
strings. A chunk's vector is the sum of the vectors of its sentences, each encoded once by MiniLM;
the time to encode real chunks is measured apart. The queries are sentences with a fifth of their
words left out, encoded by MiniLM within the time of a query. Recall is that of the ten nearest
vectors, against exact search.
"""

import ast
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
import torch

from benchmarks.table import Page, parser
from engine.process import PROJECT, prepare_process
from retrieval.chunks import split_sentences
from retrieval.dense import DENSE_KINDS, DenseIndex
from retrieval.documents import Document
from retrieval.encoders import SentenceVectors
from retrieval.index import Index, IndexSettings
from retrieval.indexing import update_index
from retrieval.retriever import Retriever

SENTENCES_PER_DOCUMENT = 300
NEIGHBORS = 10


class SumOfSentences:
    """An encoder that adds the vectors of known sentences, and encodes other texts.

    Args:
        encoder: Encodes the sentences.
        sentences: Sentences whose vectors are stored.
    """

    def __init__(self, encoder: SentenceVectors, sentences: Sequence[str]) -> None:
        self.encoder = encoder
        self.source = encoder.source
        self.fingerprint = f"sums of {encoder.fingerprint}"
        self.tokenizer = encoder.tokenizer
        self.known = dict(zip(sentences, encoder.encode(sentences), strict=True))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return one vector of norm 1 per text, (N, D) float32."""
        rows = []
        for text in texts:
            spans = split_sentences(text)
            found = [self.known.get(text[start:end].strip()) for start, end in spans]
            known = [vector for vector in found if vector is not None]
            rows.append(sum(known) if known else self.encoder.encode([text])[0])
        vectors = np.stack(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read_sentences(count: int) -> list[str]:
    """Return distinct sentences of documentation, of 5 to 25 words, in a fixed random order."""
    texts = [path.read_text("utf-8") for path in sorted((PROJECT / "docs").glob("*.md"))]
    for file in sorted(_standard_library()):
        nodes = ast.walk(ast.parse(file.read_text("utf-8")))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
    found = {" ".join(t[a:b].split()) for t in texts for a, b in split_sentences(t)}
    whole = [s for s in sorted(found) if 5 <= len(s.split()) <= 25 and is_separable(s)]
    random.Random(0).shuffle(whole)
    return whole[:count]


def is_separable(sentence: str) -> bool:
    """Return whether a sentence is found again between two others."""
    text = f"It is. {sentence} It is."
    return sentence in [text[start:end].strip() for start, end in split_sentences(text)]


def _standard_library() -> set[Path]:
    """Return the files of the modules of Python's library that are imported already."""
    modules = [sys.modules.get(name) for name in sys.stdlib_module_names]
    files = {Path(str(getattr(module, "__file__", ""))) for module in modules}
    return {file for file in files if file.suffix == ".py"}


def make_documents(sentences: Sequence[str], chunks: int, per_chunk: int) -> Iterator[Document]:
    """Yield documents that have about as many chunks together."""
    draw = random.Random(1)
    for number in range(chunks * per_chunk // SENTENCES_PER_DOCUMENT):
        text = " ".join(draw.choice(sentences) for _ in range(SENTENCES_PER_DOCUMENT))
        yield Document(f"document-{number:05d}", text)


def make_queries(sentences: Sequence[str], count: int) -> list[str]:
    """Return sentences with a fifth of their words left out."""
    draw = random.Random(2)
    return [
        " ".join(word for word in draw.choice(sentences).split() if draw.random() > 0.2)
        for _ in range(count)
    ]


def milliseconds(run: Callable[[str], object], queries: Sequence[str]) -> tuple[float, float]:
    """Return the median and the 99th percentile of the time of a query."""
    times = []
    for query in queries:
        started = time.perf_counter()
        run(query)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times)), float(np.quantile(times, 0.99))


def memory() -> float:
    """Return the largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print tables; `--write` also writes them to a file."""
    arguments = parser("retrieval", __doc__)
    arguments.add_argument("--chunks", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=300)
    arguments.add_argument("--sentences", type=int, default=2000, help="that are encoded")
    options = arguments.parse_args()
    prepare_process()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    encoder = SentenceVectors()
    sentences = read_sentences(options.sentences)
    started = time.perf_counter()
    sums = SumOfSentences(encoder, sentences)
    rate = len(sentences) / (time.perf_counter() - started)
    queries = make_queries(sentences, options.queries)
    with TemporaryDirectory() as temporary:
        settings = IndexSettings(max_tokens=64, overlap=0, window=0, dense="hnsw")
        documents = list(make_documents(sentences, options.chunks, per_chunk=3))
        started = time.perf_counter()
        update_index(temporary, documents, sums, settings)
        seconds = time.perf_counter() - started
        index = Index.open(temporary)
        page = Page(
            "retrieval",
            "Speed of retrieval",
            f"{len(index.chunks):,} chunks of at most 64 tokens, {len(queries)} queries.",
            faiss,
        )
        compare_kinds(page, index.vectors("chunks"), encoder.encode(queries))
        page.table("query with encoding", "p50", "p99")
        for components in (["dense"], ["sparse"], ["dense", "sparse"]):
            retriever = Retriever(index, sums, components)
            p50, p99 = milliseconds(retriever.search, queries)
            page.row(" + ".join(components), f"{p50:.1f} ms", f"{p99:.1f} ms")
        size = sum(path.stat().st_size for path in Path(temporary).rglob("*")) / 2**20
        page.table("index folder with HNSW", "")
        page.row("chunks and BM25 and graph", f"{seconds:.0f} s")
        page.row("sentences encoded per second", f"{rate:.0f}")
        page.row("size", f"{size:.0f} MB")
        page.row("largest resident memory", f"{memory():.0f} MB")
    page.write(options.write)


def compare_kinds(page: Page, vectors: np.ndarray, queries: np.ndarray) -> None:
    """Add a table of the kinds of dense indexes."""
    exact = DenseIndex.build(vectors)
    nearest = [set(exact.search(query, NEIGHBORS).rows.tolist()) for query in queries]
    page.table("vectors", "build", "file", "p50", "p99", f"recall@{NEIGHBORS}")
    for kind in DENSE_KINDS:
        started = time.perf_counter()
        index = DenseIndex.build(vectors, kind)  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        times, found = [], []
        for query, expected in zip(queries, nearest, strict=True):
            started = time.perf_counter()
            rows = index.search(query, NEIGHBORS).rows
            times.append(1000 * (time.perf_counter() - started))
            found.append(len(expected & set(rows.tolist())) / NEIGHBORS)
        with TemporaryDirectory() as temporary:
            index.save(path := Path(temporary, "index"))
            size = path.stat().st_size / 2**20 if path.exists() else 0
        page.row(
            kind,
            f"{seconds:.1f} s",
            f"{size:.0f} MB",
            f"{np.median(times):.2f} ms",
            f"{np.quantile(times, 0.99):.2f} ms",
            f"{np.mean(found):.3f}",
        )


if __name__ == "__main__":
    main()
