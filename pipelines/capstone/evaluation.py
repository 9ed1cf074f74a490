"""Ask questions whose answers are known, and compare."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modules.training.answers import normalize_answer, token_f1
from pipelines.capstone.data import Asked
from retrieval.answering import Answer, Answerer, BestSentence, QuestionAnswering
from retrieval.confidence import features
from retrieval.metrics import area_under_roc, bootstrap_interval

CUTOFFS = (1, 5)


def ask_all(
    answering: QuestionAnswering, reader: Answerer, questions: Sequence[Asked]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Answer questions by the best sentence and by a reader.

    Args:
        answering: Of the index; its calibration decides which questions are answered.
        reader: The reader.
        questions: The questions.

    Returns:
        Metrics, and a row for each question:
        `retrieval/recall@k`, the fraction of questions one of whose first k passages has the
        answer; `sentence/…` and `reader/…`: token F1, and the fraction of answers that contain the
        correct one; `citations/exact`, the fraction of citations that are the cited characters;
        `abstention/…`: area under the ROC curve of the score of answered against unanswered
        questions, and the fractions of both that are answered; `ms/question`, the median.
    """
    rows, seconds = [], []
    for asked in questions:
        started = time.perf_counter()
        query = answering.retriever.query(asked.question)
        rankings = answering.retriever.rankings(query)
        ranked = answering.retriever.combine(asked.question, rankings).top(max(CUTOFFS))
        score = answering.calibration.probability(*features(answering.index, query, rankings))
        answers = {
            name: _answer(answering, answerer, (query, rankings, ranked))
            for name, answerer in (("sentence", BestSentence()), ("reader", reader))
        }
        seconds.append(time.perf_counter() - started)
        rows.append(_row(answering, asked, score, answers))
    known = [row for row in rows if row["expected"] is not None]
    unknown = [row for row in rows if row["expected"] is None]
    names = ["recall@1", "recall@5"] + [
        f"{name}/{metric}" for name in ("sentence", "reader") for metric in ("f1", "contains")
    ]
    metrics = {f"retrieval/{n}" if "@" in n else n: _mean(known, n) for n in names}
    metrics["citations/exact"] = _mean([row for row in rows if row["citations"]], "exact")
    metrics["abstention/answered_known"] = _mean(known, "answered")
    if unknown:
        scores = [np.array([row["score"] for row in group]) for group in (known, unknown)]
        metrics["abstention/answered_unknown"] = _mean(unknown, "answered")
        metrics["abstention/auroc"] = float(area_under_roc(*scores))
    metrics["ms/question"] = round(1000 * statistics.median(seconds), 2)
    return metrics, rows


def better_answerer(rows: Sequence[dict[str, Any]]) -> str:
    """Return `reader` if its token F1 is higher than that of the best sentences, else `sentence`.

    The difference is taken question by question, and the lower end of its 95 % interval must be
    above 0: a reader costs more time than a sentence, and needs evidence that it is better.

    Args:
        rows: Rows of `ask_all`.
    """
    known = [row for row in rows if row["expected"] is not None]
    gains = [row["reader/f1"] - row["sentence/f1"] for row in known]
    return "reader" if gains and bootstrap_interval(gains)[0] > 0 else "sentence"


def _answer(answering: QuestionAnswering, answerer: Answerer, found: tuple[Any, ...]) -> Answer:
    """Return the answer of an answerer, whatever its score."""
    always = QuestionAnswering(
        answering.retriever, answerer, replace(answering.calibration, threshold=0.0)
    )
    return always.answer(*found)


def _row(
    answering: QuestionAnswering, asked: Asked, score: float, answers: dict[str, Answer]
) -> dict[str, Any]:
    passages = answers["sentence"].passages
    citations = [citation for answer in answers.values() for citation in answer.citations]
    numbers = {d["name"]: number for number, d in enumerate(answering.index.documents)}
    exact = [
        answering.index.text(numbers[cited.document])[cited.start : cited.end] == cited.text
        for cited in citations
    ]
    row: dict[str, Any] = {
        "question": asked.question,
        "expected": asked.answer,
        "score": score,
        "answered": score >= answering.calibration.threshold,
        "citations": len(citations),
        "exact": float(all(exact)),
        **{name: answer.answer for name, answer in answers.items()},
    }
    if asked.answer is not None:
        for k in CUTOFFS:
            found = any(contains(passage.text, asked.answer) for passage in passages[:k])
            row[f"recall@{k}"] = float(found)
        for name, answer in answers.items():
            row[f"{name}/f1"] = token_f1(answer.answer, [asked.answer])
            row[f"{name}/contains"] = float(contains(answer.answer, asked.answer))
    return row


def contains(text: str, answer: str) -> bool:
    """Return whether a text has an answer; case, punctuation and articles do not matter."""
    return normalize_answer(answer) in normalize_answer(text)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows])) if rows else 0.0
