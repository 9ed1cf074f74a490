"""Rank the sentences of passages."""

import numpy as np

from retrieval.index import Index, Query
from retrieval.ranking import Ranking, fuse, rank


def rank_sentences(index: Index, query: Query, passages: Ranking) -> Ranking:
    """Rank the sentences of passages by the sum of three z-scores.

    These are the similarity of the sentence, its BM25 score, and the score of its passage.

    Args:
        index: An index with a sentence level; without one there are no sentences.
        query: The question.
        passages: Ranked chunks.
    """
    if not len(passages.rows) or not index.settings.window:
        return Ranking(np.empty(0, np.int64), np.empty(0))
    parts = []
    for chunk in passages.rows.tolist():
        found = index.sentence_range(slice(chunk, chunk + 1))
        parts.append(np.arange(found.start, found.stop))
    rows = np.concatenate(parts)
    passage_scores = np.repeat(passages.scores, [len(part) for part in parts])
    similarity = index.vectors("sentences")[rows] @ query.vector
    words = index.sparse["sentences"].scores(query.text)[rows]
    ranked = fuse([rank(rows, scores) for scores in (similarity, words, passage_scores)])
    return _without_copies(index, ranked)


def _without_copies(index: Index, ranked: Ranking) -> Ranking:
    """Leave out sentences of the overlap of two chunks that are ranked already."""
    seen: set[tuple] = set()
    kept = []
    for position, row in enumerate(ranked.rows.tolist()):
        place = index.sentence(row)[:3]
        if place not in seen:
            seen.add(place)
            kept.append(position)
    return Ranking(ranked.rows[kept], ranked.scores[kept])
