"""FAISS against brute force, BM25 against rank_bm25, fusion, and the reranker."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import UserError
from retrieval.answering import QuestionAnswering
from retrieval.confidence import Calibration
from retrieval.dense import DENSE_KINDS, MIN_TRAINED, DenseIndex
from retrieval.filters import parse_condition
from retrieval.index import Index, IndexSettings
from retrieval.indexing import update_index
from retrieval.ranking import Ranking, fuse, rank
from retrieval.reading import ReaderAnswers
from retrieval.retriever import Retriever
from retrieval.sparse import SparseIndex, WordTokenizer
from tests.support.retrieval import HashedWords, small_documents

COUNT = MIN_TRAINED  # vectors: enough for each kind of index
TEXTS = [
    "The owl hunts mice at night, and mice hide from owls.",
    "Whales dive for squid.",
    "",
    "Mice eat grain; an owl eats mice; a cat hunts mice.",
]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Return vectors in 100 clusters."""
    draw = np.random.default_rng(0)
    centers = draw.standard_normal((100, 16))
    rows = centers[draw.integers(100, size=COUNT)] + 0.3 * draw.standard_normal((COUNT, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=DENSE_KINDS)
def dense_index(
    request: pytest.FixtureRequest, vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> DenseIndex:
    """Return an index that was written and opened."""
    path = tmp_path_factory.mktemp("dense") / "a.faiss"
    DenseIndex.build(vectors, request.param).save(path)
    return DenseIndex.open(path, vectors)


@pytest.mark.parametrize("fraction", [None, 0.5, 0.01])
def test_dense_index_finds_what_brute_force_finds(
    fraction: float | None, vectors: np.ndarray, dense_index: DenseIndex
) -> None:
    allowed = None if fraction is None else np.random.default_rng(1).random(COUNT) < fraction
    hits = []
    for query in vectors[::500]:
        exact = vectors @ query if allowed is None else np.where(allowed, vectors @ query, -9)
        expected = np.argsort(-exact)[:10]
        found = dense_index.search(query, 10, allowed)
        assert np.allclose(found.scores, vectors[found.rows] @ query, atol=1e-6)
        assert (np.diff(found.scores) <= 0).all()
        hits.append(len(set(found.rows) & set(expected)) / 10)
    compressed = dense_index.index is not None and hasattr(dense_index.index, "nprobe")
    assert np.mean(hits) >= (1 if dense_index.index is None else 0.9 if compressed else 0.98)


def test_bm25_equals_rank_bm25_on_the_same_tokens() -> None:
    from rank_bm25 import BM25Plus

    words = WordTokenizer()
    index = SparseIndex.build(TEXTS, words, k1=1.5, b=0.75, method="bm25+")
    for question in ("owl mice", "Which whale dives?", "mice mice"):
        (query,) = words([question])
        reference = BM25Plus(words(TEXTS), k1=1.5, b=0.75, delta=0.5).get_scores(query)
        assert np.allclose(index.scores(question), reference, atol=1e-5)


def test_sparse_index_needs_a_common_word(tmp_path: Path) -> None:
    words = WordTokenizer()
    SparseIndex.build(TEXTS, words).save(tmp_path / "bm25")
    index = SparseIndex.open(tmp_path / "bm25", words)
    assert index.search("the owl", 5).rows.tolist() == [0, 3]
    assert index.search("the owl", 5, np.arange(4) > 0).rows.tolist() == [3]
    assert not len(index.search("granite", 5).rows)
    assert not len(index.search("", 5).rows)


def test_z_scores_and_reciprocal_ranks() -> None:
    first = Ranking(np.array([4, 1, 2]), np.array([3.0, 2.0, 1.0]))
    second = Ranking(np.array([2, 4]), np.array([10.0, 0.0]))
    found = fuse([first, second])
    assert found.rows.tolist() == [4, 2, 1]
    z = np.sqrt(1.5)  # 1 standard deviation is sqrt(2 / 3)
    assert np.allclose(found.scores, [z - 1, 1 - z, -1])
    found = fuse([first, second], "reciprocal_ranks")
    assert found.rows.tolist() == [4, 2, 1]
    assert np.allclose(found.scores, [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])
    assert fuse([first, second], weights=[0, 1]).rows[0] == 2
    assert not len(fuse([]).rows)


def test_equal_scores_are_in_the_order_of_the_rows() -> None:
    rows = np.arange(6)
    assert rank(rows, np.array([1.0, 2, 2, 2, 0, 2]), 3).rows.tolist() == [1, 2, 3]


class SmallestFirst:
    """A reranker that prefers short texts."""

    def scores(self, question, texts):  # type: ignore[no-untyped-def]
        return np.array([-100.0 * len(text) for text in texts])


def test_reranker_reorders_the_best_and_only_them(tmp_path: Path) -> None:
    update_index(
        tmp_path, small_documents(), HashedWords(), IndexSettings(max_tokens=20, overlap=6)
    )
    index, encoder = Index.open(tmp_path), HashedWords()
    plain = Retriever(index, encoder).rank("Do whales live in seas?")
    found = Retriever(index, encoder, reranker=SmallestFirst(), reranked=3).rank(
        "Do whales live in seas?"
    )
    assert set(found.rows[:3]) == set(plain.rows[:3])
    assert found.rows[3:].tolist() == plain.rows[3:].tolist()
    assert found.rows.tolist() != plain.rows.tolist()
    assert (np.diff(found.scores) <= 0).all()


def test_unknown_component_and_weights(tmp_path: Path) -> None:
    update_index(tmp_path, small_documents(), HashedWords(), IndexSettings(window=0))
    index, encoder = Index.open(tmp_path), HashedWords()
    with pytest.raises(UserError, match="this index lacks it; choose of dense, sparse"):
        Retriever(index, encoder, ["dense_sentences"])
    with pytest.raises(UserError, match="3 weights for 2 components"):
        Retriever(index, encoder, weights=[1, 2, 3])
    with pytest.raises(UserError, match="no stemmer for 'klingon'"):
        WordTokenizer("klingon")
    with pytest.raises(UserError, match="give a key"):
        parse_condition("year 2020")


def test_reader_answers_from_the_passages_with_their_offsets(tmp_path: Path) -> None:
    from modules import SpanReader
    from modules.span_reader import AnswerSpan

    class FiveHundred(SpanReader):
        """A reader that marks "five hundred"."""

        def __init__(self) -> None:
            self.__dict__["tokenizer"] = object()

        def answer(self, question, context, batch_size=16):  # type: ignore[no-untyped-def]
            starts = [text.find("five hundred") for text in context]
            spans = [AnswerSpan("five hundred", s, s + 12, 1.0) for s in starts]
            return [s if s.start >= 0 else AnswerSpan("", 0, 0, 9.0) for s in spans]

    update_index(
        tmp_path, small_documents(), HashedWords(), IndexSettings(max_tokens=20, overlap=6)
    )
    retriever = Retriever(Index.open(tmp_path), HashedWords())
    calibration = Calibration(threshold=0.0)
    answering = QuestionAnswering(retriever, ReaderAnswers(FiveHundred()), calibration)
    answer = answering.ask("How many years lives an oak?")
    (citation,) = answer.citations
    text = {d.name: d.text for d in small_documents()}["plants.txt"]
    assert answer.answer == citation.text == text[citation.start : citation.end] == "five hundred"
