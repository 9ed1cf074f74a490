"""Index folders: incremental, atomic, resumable, checked, locked, and equal over Qdrant."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from engine.errors import UserError
from retrieval import indexing
from retrieval.dense import DENSE_KINDS
from retrieval.documents import Document, Skipped
from retrieval.filters import parse_condition
from retrieval.index import COMPONENTS, Index, IndexSettings
from retrieval.indexing import update_index
from retrieval.qdrant import QdrantIndex
from retrieval.retriever import Retriever
from tests.support.retrieval import HashedWords, small_documents

QUESTION = "How deep does a whale dive?"
SETTINGS = IndexSettings(max_tokens=20, overlap=6)


def results(folder: Path, question: str = QUESTION, **options: object) -> list:
    found = Retriever(Index.open(folder), HashedWords(), **options).search(question, 10)
    return [passage._replace(row=0) for passage in found]


def test_passages_are_the_characters_of_the_document(tmp_path: Path) -> None:
    documents = small_documents()
    update_index(tmp_path / "index", documents, HashedWords(), SETTINGS)
    best = results(tmp_path / "index")[0]
    assert (best.document, best.heading) == ("animals.md", "Animals > Seas")
    text = {d.name: d.text for d in documents}
    for passage in results(tmp_path / "index"):
        assert passage.text == text[passage.document][passage.start : passage.end]
    assert "whale" in best.text


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("dense", DENSE_KINDS)
def test_each_component_finds_the_passage(component: str, dense: str, tmp_path: Path) -> None:
    settings = IndexSettings(max_tokens=20, overlap=6, dense=dense)  # type: ignore[arg-type]
    update_index(tmp_path / "index", small_documents(), HashedWords(), settings)
    assert "whale" in results(tmp_path / "index", components=[component])[0].text


def test_incremental_index_equals_a_rebuilt_one(tmp_path: Path) -> None:
    first, second, third = small_documents()
    encoder = HashedWords()
    update_index(tmp_path / "a", [first, second], encoder, SETTINGS)
    changed = Document(second.name, second.text + "Bamboo is a grass that whales never see.\n")
    encoder.encoded = 0
    report = update_index(tmp_path / "a", [changed, first, third], encoder)
    assert (report.added, report.updated, report.unchanged) == (1, 1, 1)
    update_index(tmp_path / "b", [third, changed, first], HashedWords(), SETTINGS)
    assert encoder.encoded < HashedWords_count(tmp_path / "b")  # the vectors of `first` are kept
    assert results(tmp_path / "a") == results(tmp_path / "b")
    for name in ("chunks", "sentences"):
        a, b = (Index.open(tmp_path / folder).vectors(name) for folder in "ab")
        assert np.array_equal(a, b)


def HashedWords_count(folder: Path) -> int:
    index = Index.open(folder)
    return len(index.chunks) + len(index.sentences)


def test_deleted_text_is_gone_from_disk(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    update_index(folder, small_documents(), HashedWords(), SETTINGS)
    assert contains(folder, b"Granite")
    assert contains(folder, b"granit")  # the stem
    report = update_index(folder, small_documents()[:2], HashedWords())
    assert report.deleted == 1
    assert not contains(folder, b"Granite")
    assert not contains(folder, b"granit")


def contains(folder: Path, text: bytes) -> bool:
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_keep_leaves_documents_that_are_not_given(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first, *others = small_documents()
    update_index(folder, others, HashedWords(), SETTINGS)
    report = update_index(folder, [first], HashedWords(), keep=True)
    assert (report.added, report.deleted, report.unchanged) == (1, 0, 2)
    assert len(Index.open(folder).documents) == 3


def test_killed_update_leaves_the_former_version_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "GROUP", 1)
    folder, documents = tmp_path / "index", small_documents()
    update_index(folder, documents[:1], HashedWords(), SETTINGS)
    former = results(folder)

    class Killed(HashedWords):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            if any("Granite" in text for text in texts):
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        update_index(folder, documents, Killed())
    assert results(folder) == former
    resumed = HashedWords()
    update_index(folder, documents, resumed)
    assert resumed.encoded == 3  # granite: a chunk and two sentences; plants.txt was encoded before
    update_index(tmp_path / "uninterrupted", documents, HashedWords(), SETTINGS)
    assert results(folder) == results(tmp_path / "uninterrupted")
    assert not (folder / "partial").exists()


def test_killed_while_writing_leaves_the_former_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    update_index(folder, small_documents()[:1], HashedWords(), SETTINGS)
    with monkeypatch.context() as patch:

        def killed(path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(indexing, "_sync", killed)
        with pytest.raises(KeyboardInterrupt):
            update_index(folder, small_documents(), HashedWords())
    assert len(Index.open(folder).documents) == 1
    update_index(folder, small_documents(), HashedWords())
    assert len(Index.open(folder).documents) == 3
    assert len([*(folder / "versions").iterdir()]) == 1


def test_second_indexer_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(UserError, match="by another process"):
        update_index(tmp_path, small_documents(), HashedWords())


def test_other_encoder_and_other_settings_are_refused(tmp_path: Path) -> None:
    update_index(tmp_path, small_documents(), HashedWords(), SETTINGS)
    with pytest.raises(UserError, match="made with the encoder hashed-words"):
        update_index(tmp_path, small_documents(), HashedWords("other"))
    with pytest.raises(UserError, match="delete the folder"):
        update_index(tmp_path, small_documents(), HashedWords(), IndexSettings())


@pytest.mark.parametrize(
    "name", ["texts.txt", "chunks_vectors.npy", "bm25_chunks/data.csc.index.npy"]
)
def test_damaged_file_is_found_by_its_checksum(name: str, tmp_path: Path) -> None:
    update_index(tmp_path, small_documents(), HashedWords(), SETTINGS)
    path = next(tmp_path.glob(f"versions/*/{name}"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path.name} is damaged"):
        Index.open(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        Index.open(tmp_path)


def test_nothing_to_index_names_what_was_skipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 skipped: a\.pdf: damaged"):
        update_index(tmp_path, [Skipped("a.pdf", "damaged")], HashedWords())
    with pytest.raises(UserError, match="is not an index"):
        Index.open(tmp_path)


def qdrant(tmp_path: Path) -> QdrantIndex:
    from qdrant_client import QdrantClient

    return QdrantIndex(QdrantClient(":memory:"), "test", HashedWords(), SETTINGS)


def folder_index(tmp_path: Path) -> Index:
    update_index(tmp_path / "index", small_documents(), HashedWords(), SETTINGS)
    return Index.open(tmp_path / "index")


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("year>=2021", {"plants.txt"}),
        ("lang=en", {"animals.md", "plants.txt"}),
        ("lang!=en", {"stones.txt"}),
        ("year=2020", {"animals.md"}),
        ("document=stones.txt", {"stones.txt"}),
    ],
)
@pytest.mark.parametrize("make", [folder_index, pytest.param(qdrant, marks=pytest.mark.slow)])
def test_conditions_on_metadata(
    make: Callable, where: str, names: set[str], tmp_path: Path
) -> None:
    index = make(tmp_path)
    if isinstance(index, QdrantIndex):
        index.update(small_documents())
    found = Retriever(index, HashedWords()).search("stones", 20, [parse_condition(where)])
    assert {passage.document for passage in found} == names


@pytest.mark.slow  # importing qdrant_client takes seconds
def test_qdrant_ranks_as_the_folder_and_updates_incrementally(tmp_path: Path) -> None:
    folder, server = folder_index(tmp_path), qdrant(tmp_path)
    server.update(small_documents()[:2])
    report = server.update(small_documents())
    assert (report.added, report.unchanged, report.chunks) == (1, 2, len(folder.chunks))
    encoder = HashedWords()
    for question in (QUESTION, "Do ferns have seeds?"):
        a, b = (
            Retriever(index, encoder, ["dense", "dense_sentences"]).search(question, 4)
            for index in (folder, server)
        )
        assert [p[1:7] for p in a] == [p[1:7] for p in b]
        assert np.allclose([p.score for p in a], [p.score for p in b], atol=1e-5)
        best = Retriever(server, encoder, ["sparse"]).search(question, 1)[0]
        assert best[1:7] == Retriever(folder, encoder, ["sparse"]).search(question, 1)[0][1:7]
    assert server.update(small_documents()[1:]).deleted == 1
    found = Retriever(server, encoder).search(QUESTION, 20)
    assert "animals.md" not in {passage.document for passage in found}
    with pytest.raises(UserError, match="another encoder"):
        QdrantIndex(server.client, "test", HashedWords("other"), SETTINGS)
