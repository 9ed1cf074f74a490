"""Answer questions from the passages of an index, with citations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, cast

from retrieval.confidence import Calibration, features
from retrieval.filters import Condition
from retrieval.index import Index, Passage, Query
from retrieval.ranking import Ranking
from retrieval.retriever import Retriever
from retrieval.sentences import rank_sentences

NOT_FOUND = "not in the documents"


class Citation(NamedTuple):
    """The characters of a document that support an answer."""

    document: str
    start: int  # offset of the first character
    end: int  # offset after the last character
    text: str


@dataclass(frozen=True)
class Answer:
    """An answer with its sources.

    Args:
        answer: The answer, or `not in the documents`.
        citations: Parts of the documents that it is taken from; none if it was not found.
        score: Probability that the documents answer the question.
        passages: The passages that were read.
    """

    answer: str
    citations: list[Citation] = field(default_factory=list)
    score: float = 0.0
    passages: list[Passage] = field(default_factory=list)

    @property
    def abstained(self) -> bool:
        """Whether the documents do not answer the question."""
        return not self.citations

    def as_dict(self) -> dict[str, Any]:
        """Return answer, citations and score as plain values."""
        return {
            "answer": self.answer,
            "citations": [citation._asdict() for citation in self.citations],
            "score": round(self.score, 4),
        }


class Evidence(NamedTuple):
    """What an answerer reads: a question with its best passages and sentences."""

    query: Query
    passages: list[Passage]
    sentences: list[Citation]  # the best first


class Answerer(Protocol):
    """Turn evidence into an answer."""

    def answer(self, evidence: Evidence) -> tuple[str, list[Citation]]:
        """Return the answer and what it is taken from; no citation means no answer."""


class BestSentence:
    """Answer with the sentence that fits the question best."""

    def answer(self, evidence: Evidence) -> tuple[str, list[Citation]]:
        """Return the best sentence, which is its own citation."""
        if not evidence.sentences:
            return NOT_FOUND, []
        best = evidence.sentences[0]
        return " ".join(best.text.split()), [best]


class QuestionAnswering:
    """Answer questions about the documents of an index.

    Args:
        retriever: Finds the passages; its index is a folder.
        answerer: Makes the answer; the best sentence by default.
        calibration: Weights and threshold of the score.
        passages: How many passages the answerer reads.
    """

    def __init__(
        self,
        retriever: Retriever,
        answerer: Answerer | None = None,
        calibration: Calibration | None = None,
        passages: int = 5,
    ) -> None:
        self.retriever = retriever
        self.answerer = answerer or BestSentence()
        self.calibration = calibration or Calibration()
        self.count = passages

    def ask(
        self, question: str, conditions: Sequence[Condition] = (), passages: int | None = None
    ) -> Answer:
        """Answer a question; below the threshold of the score, `not in the documents`.

        Args:
            question: The question.
            conditions: Conditions on the documents.
            passages: How many passages the answerer reads; by default those of the constructor.
        """
        query = self.retriever.query(question)
        rankings = self.retriever.rankings(query, conditions)
        ranked = self.retriever.combine(question, rankings).top(passages or self.count)
        return self.answer(query, rankings, ranked)

    def answer(self, query: Query, rankings: dict[str, Ranking], ranked: Ranking) -> Answer:
        """Answer from ranked passages.

        Args:
            query: The question.
            rankings: Candidates of the components, which the score depends on.
            ranked: The passages to read.
        """
        index = self.index
        score = self.calibration.probability(*features(index, query, rankings))
        found = index.passages(ranked)
        if score < self.calibration.threshold or not found:
            return Answer(NOT_FOUND, [], score, found)
        evidence = Evidence(query, found, self._sentences(query, ranked))
        text, citations = self.answerer.answer(evidence)
        return Answer(text, citations, score, found)

    @property
    def index(self) -> Index:
        """The index folder."""
        return cast(Index, self.retriever.index)

    def _sentences(self, query: Query, ranked: Ranking) -> list[Citation]:
        sentences = rank_sentences(self.index, query, ranked)
        return [Citation(*self.index.sentence(row)) for row in sentences.rows.tolist()]
