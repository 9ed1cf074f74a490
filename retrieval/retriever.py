"""Find the passages of an index that answer a question: candidates, fusion, reranking."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.errors import UserError
from modules.classifier import Classifier
from retrieval.encoders import Encoder
from retrieval.filters import Condition
from retrieval.index import COMPONENTS, Passage, PassageIndex, Query
from retrieval.ranking import FUSIONS, Fusion, Ranking, fuse, rank


class Reranker(Protocol):
    """Score pairs of question and text."""

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return one score per text, higher for a better answer, (N,)."""


class CrossEncoder:
    """A Classifier over pairs of question and text as a reranker (Nogueira & Cho 2019).

    Args:
        model: Its second class is `relevant`.
        batch_size: Pairs that are classified at a time.
    """

    def __init__(self, model: Classifier, batch_size: int = 16) -> None:
        if len(model.class_names) != 2:
            raise UserError(
                f"a reranker has two classes, irrelevant and relevant, not {model.class_names}."
            )
        self.model = model
        self.batch_size = batch_size

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        """Return the log-odds that each text is relevant, (N,)."""
        parts = []
        for start in range(0, len(texts), self.batch_size):
            batch = [(question, text) for text in texts[start : start + self.batch_size]]
            parts.append(self.model.probabilities(batch)[:, 1].double().numpy())
        relevant = np.concatenate(parts).clip(1e-12, 1 - 1e-12)
        return np.log(relevant / (1 - relevant))


class Retriever:
    """Rank the chunks of an index for a question.

    Args:
        index: An index folder or a Qdrant collection.
        encoder: The encoder that the index was made with.
        components: Which rankings are combined; by default all that the index has.
        fusion: How they are combined.
        weights: Factor of each component; 1 by default.
        candidates: Chunks of each component.
        reranker: Scores the best chunks anew; its z-scores are added to those of the fusion.
        reranked: How many chunks the reranker scores.
    """

    def __init__(
        self,
        index: PassageIndex,
        encoder: Encoder,
        components: Sequence[str] | None = None,
        fusion: Fusion = "z_scores",
        weights: Sequence[float] | None = None,
        candidates: int = 100,
        reranker: Reranker | None = None,
        reranked: int = 20,
    ) -> None:
        self.index = index
        self.encoder = encoder
        self.components = tuple(components or index.components)
        self.fusion = fusion
        self.weights = weights
        self.candidates = candidates
        self.reranker = reranker
        self.reranked = reranked
        if unknown := [name for name in self.components if name not in index.components]:
            why = "this index lacks it" if unknown[0] in COMPONENTS else "it is unknown"
            raise UserError(
                f"component {unknown[0]!r}: {why}; choose of {', '.join(index.components)}."
            )
        if fusion not in FUSIONS:
            raise UserError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}.")
        if weights is not None and len(weights) != len(self.components):
            raise UserError(
                f"there are {len(weights)} weights for {len(self.components)} components."
            )

    def query(self, question: str) -> Query:
        """Return a question with its vector."""
        return Query(question, self.encoder.encode([question])[0])

    def rankings(self, query: Query, conditions: Sequence[Condition] = ()) -> dict[str, Ranking]:
        """Return the candidates of each component."""
        return {
            name: self.index.rank(name, query, self.candidates, tuple(conditions))
            for name in self.components
        }

    def rank(self, question: str, conditions: Sequence[Condition] = ()) -> Ranking:
        """Return all candidates with their combined scores."""
        return self.combine(question, self.rankings(self.query(question), conditions))

    def combine(self, question: str, rankings: dict[str, Ranking]) -> Ranking:
        """Fuse the candidates of the components and rerank the best."""
        fused = fuse([rankings[name] for name in self.components], self.fusion, self.weights)
        if self.reranker is None or not len(fused.rows):
            return fused
        best = fused.top(self.reranked)
        texts = [passage.text for passage in self.index.passages(best)]
        reranked = rank(best.rows, self.reranker.scores(question, texts))
        first = fuse([best, reranked])
        rest = Ranking(fused.rows[self.reranked :], fused.scores[self.reranked :])
        lowered = rest.scores - (rest.scores.max(initial=-np.inf) - first.scores.min() + 1)
        return Ranking(
            np.concatenate([first.rows, rest.rows]), np.concatenate([first.scores, lowered])
        )

    def search(
        self, question: str, k: int = 5, conditions: Sequence[Condition] = ()
    ) -> list[Passage]:
        """Return the `k` best passages, the best first."""
        return self.index.passages(self.rank(question, conditions).top(k))
