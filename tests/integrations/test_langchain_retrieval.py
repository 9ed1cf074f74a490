"""Our retrieval as parts of LangChain passes its standard tests and gives equal results."""

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="needs langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from engine.errors import UserError
from integrations.langchain import ChatStepladder
from integrations.langchain_retrieval import StepladderRetriever, StepladderVectorStore
from retrieval.index import Passage
from retrieval.retriever import Retriever
from tests.integrations.test_langchain import Scripted

TEXTS = ["The filter is cleaned weekly.", "The pump starts at noon.", "Nobody opens the valve."]
METADATA = [{"page": 1}, {"page": 2}, {"page": 3}]


@pytest.fixture
def store(tmp_path: Path) -> StepladderVectorStore:
    embedding = DeterministicFakeEmbedding(size=6)
    return StepladderVectorStore.from_texts(
        TEXTS, embedding, METADATA, ids=["a", "b", "c"], folder=tmp_path / "index"
    )


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> StepladderVectorStore:  # type: ignore[override]
        return StepladderVectorStore(tmp_path / "index", self.get_embeddings())


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def use_store(self, store: StepladderVectorStore) -> None:
        self.plain = plain_retriever(store)

    @property
    def retriever_constructor(self) -> type[StepladderRetriever]:
        return StepladderRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"retriever": self.plain}

    @property
    def retriever_query_example(self) -> str:
        return "How is the filter cleaned?"


def plain_retriever(store: StepladderVectorStore) -> Retriever:
    assert store.index is not None
    return Retriever(store.index, store.encoder)


def test_retriever_returns_the_passages_of_the_plain_function(store: StepladderVectorStore) -> None:
    plain = plain_retriever(store)
    expected = plain.search("the filter", 2)
    found = StepladderRetriever(retriever=plain, k=2).invoke("the filter")
    assert [document.page_content for document in found] == [one.text for one in expected]
    first = found[0].metadata
    assert (first["source"], first["score"]) == (expected[0].document, expected[0].score)
    assert first["page"] == expected[0].metadata["page"]


def test_chain_puts_the_passages_into_the_prompt(store: StepladderVectorStore) -> None:
    model = Scripted("Weekly.")
    plain = plain_retriever(store)
    (passage,) = plain.search("filter cleaned?", 1)
    retriever = StepladderRetriever(retriever=plain, k=1)
    chain = (
        {"passages": retriever | joined, "question": RunnablePassthrough()}
        | ChatPromptTemplate([("user", "{passages}\n{question}")])
        | ChatStepladder(language_model=model)
        | StrOutputParser()
    )
    assert chain.invoke("filter cleaned?") == "Weekly."
    prompt = f"{passage.text}\nfilter cleaned?"
    assert model.conversations == [[{"role": "user", "content": prompt}]]


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def test_store_is_kept_on_disk_and_belongs_to_its_embeddings(
    store: StepladderVectorStore,
) -> None:
    again = StepladderVectorStore(store.folder, store.embeddings)
    query = TEXTS[1]
    assert again.similarity_search_with_score(query) == store.similarity_search_with_score(query)
    assert again.similarity_search(query, 1)[0].id == "b"
    (store.folder / "note.txt").write_text("of the user")
    assert again.delete()
    assert again.similarity_search(query) == []
    assert (store.folder / "note.txt").is_file()
    again.add_texts(["new"], ids=["n"])
    with pytest.raises(UserError, match="made with the encoder"):
        StepladderVectorStore(store.folder, DeterministicFakeEmbedding(size=5))


def test_a_query_costs_less_than_a_millisecond_besides_the_search() -> None:
    class Immediate:
        def search(self, query: str, k: int) -> list[Passage]:
            return [Passage(0, "a", 0, 3, "abc", "", {})] * k

    retriever = StepladderRetriever(retriever=Immediate(), k=5)
    seconds = []
    for _ in range(20):
        start = time.process_time()
        retriever.invoke("?")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.001
