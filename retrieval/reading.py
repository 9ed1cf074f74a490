"""Answers of a reader that marks a part of a passage."""

from engine.errors import UserError
from modules.span_reader import SpanReader
from retrieval.answering import NOT_FOUND, Citation, Evidence


class ReaderAnswers:
    """Answer with the part of the passages that a modules.SpanReader marks.

    Passages compete by the sum of the reader's log-odds and their retrieval score.

    Args:
        reader: The reader.
        passage_weight: Factor of the retrieval score, a sum of z-scores.
    """

    def __init__(self, reader: SpanReader, passage_weight: float = 1.0) -> None:
        if reader.tokenizer is None:
            raise UserError("the reader was trained without `tokenizer`.")
        self.reader = reader
        self.passage_weight = passage_weight

    def answer(self, evidence: Evidence) -> tuple[str, list[Citation]]:
        """Return the marked part of the best passage, which is its own citation."""
        passages = evidence.passages
        found = self.reader.answer(evidence.query.text, [passage.text for passage in passages])
        pairs = [pair for pair in zip(found, passages, strict=True) if pair[0].text]
        if not pairs:
            return NOT_FOUND, []
        span, passage = max(
            pairs, key=lambda pair: pair[0].score + self.passage_weight * pair[1].score
        )
        start, end = passage.start + span.start, passage.start + span.end
        return span.text, [Citation(passage.document, start, end, span.text)]
