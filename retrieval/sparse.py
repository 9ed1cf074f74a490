"""BM25 over stemmed words.

Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; the library is
bm25s (Lù 2024), the stemmer Snowball's.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from retrieval.ranking import Ranking, rank


class WordTokenizer:
    """Split texts into lower-case stems, without stop words.

    Args:
        language: Language of stemmer and stop words, such as english or german.

    Raises:
        UserError: If the stemmer does not support the language.
    """

    def __init__(self, language: str = "english") -> None:
        import bm25s
        import Stemmer

        try:
            self.stemmer = Stemmer.Stemmer(language)
        except KeyError as error:
            known = ", ".join(Stemmer.algorithms())
            raise UserError(f"language: no stemmer for {language!r}; choose of {known}.") from error
        self.stop_words: str | None = language
        try:
            bm25s.tokenize([""], stopwords=language, show_progress=False)
        except ValueError:  # no list for this language
            self.stop_words = None

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the stems of each text."""
        import bm25s

        return bm25s.tokenize(
            list(texts),
            stopwords=self.stop_words,
            stemmer=self.stemmer,
            return_ids=False,
            show_progress=False,
        )


class SparseIndex:
    """Search texts by BM25."""

    def __init__(self, model: Any, tokenize: WordTokenizer) -> None:
        self.model = model
        self.tokenize = tokenize

    @classmethod
    def build(
        cls,
        texts: Sequence[str],
        tokenize: WordTokenizer,
        k1: float = 0.9,
        b: float = 0.4,
        method: str = "lucene",
    ) -> "SparseIndex":
        """Index texts.

        Args:
            texts: One or more.
            tokenize: Words of texts and queries.
            k1: Saturation of the frequency of a word; that of Anserini by default.
            b: Normalization by length, in [0, 1]; that of Anserini by default.
            method: Variant of BM25 of the library bm25s.
        """
        import bm25s

        tokens = tokenize(texts)
        if not any(tokens):
            tokens = [["\0"], *tokens[1:]]  # the library refuses an empty vocabulary
        model = bm25s.BM25(k1=k1, b=b, method=method)
        model.index(tokens, show_progress=False)
        return cls(model, tokenize)

    def save(self, folder: Path) -> None:
        """Write the index into a new folder, without the texts."""
        self.model.save(folder, show_progress=False)

    @classmethod
    def open(cls, folder: Path, tokenize: WordTokenizer) -> "SparseIndex":
        """Open a saved index, memory-mapped."""
        import bm25s

        return cls(bm25s.BM25.load(folder, mmap=True, load_corpus=False), tokenize)

    def scores(self, query: str) -> np.ndarray:
        """Return the score of each text, (N,) float32; 0 without a common word."""
        (tokens,) = self.tokenize([query])
        known = [token for token in tokens if token in self.model.vocab_dict]
        if not known:
            return np.zeros(self.model.scores["num_docs"], np.float32)
        scores: np.ndarray = self.model.get_scores(known)
        return scores

    def largest_score(self, query: str) -> float:
        """Return the bound of the score of a text that repeats the words of the query, and no more.

        A word that no text has counts as one of the rarest.
        """
        (tokens,) = self.tokenize([query])
        count = self.model.scores["num_docs"]
        pointers, known = self.model.scores["indptr"], self.model.vocab_dict
        rows = [known.get(token) for token in tokens]
        found = [0 if row is None else int(pointers[row + 1] - pointers[row]) for row in rows]
        return sum(math.log(1 + (count - n + 0.5) / (n + 0.5)) for n in found)

    def search(self, query: str, k: int, allowed: np.ndarray | None = None) -> Ranking:
        """Return the rows of the `k` best texts that share a word with the query.

        Args:
            query: Any text.
            k: At least 1.
            allowed: Which rows may be returned, (N,) bool; all by default.
        """
        scores = self.scores(query)
        rows = np.flatnonzero(scores > 0 if allowed is None else (scores > 0) & allowed)
        return rank(rows, scores[rows], k)
