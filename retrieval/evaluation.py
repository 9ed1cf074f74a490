"""Evaluate retrieval and answers on a test set, into a run folder."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure

from engine.errors import UserError
from engine.run.expectations import Judgment, is_met, judge
from engine.run.figures import render
from engine.run.record import git_commit, versions
from modules.classifier import Classifier
from modules.span_reader import SpanReader
from modules.training.answers import exact_match, token_f1
from plotting.risk_coverage import risk_coverage_figure
from preprocessing.grounding import statement, surroundings
from retrieval.answering import Answer, Answerer, Citation, QuestionAnswering
from retrieval.confidence import Calibration, features, fit_calibration
from retrieval.encoders import MINILM, Encoder
from retrieval.index import Index, IndexSettings
from retrieval.indexing import update_index
from retrieval.metrics import area_under_roc, bootstrap_interval, ndcg, recall, reciprocal_rank
from retrieval.ranking import Fusion, Ranking, best_per_group
from retrieval.retriever import Retriever
from retrieval.sentences import rank_sentences
from retrieval.test_sets import Question, TestSet, TestSetFormat, read_test_set

SUPPORTED = 0.5  # smallest probability
DEPTH = 100  # documents of a ranking that count
# What is right or wrong in the figure of risk against coverage: label → metric of a question.
RIGHT = {"first document": "recall@1", "first sentence": "sentence/recall@1", "answer": "answer/em"}


@dataclass(frozen=True)
class TestData:
    """Which test set.

    Args:
        path: File or folder; a relative path is looked up in the working directory, then in
            DATA_DIR.
        format: squad, beir or cranfield.
        split: Judgements of beir that are used.
        documents: Number of documents; all by default.
        questions: Number of questions; all by default.
    """

    path: str
    format: TestSetFormat = "squad"
    split: str = "test"
    documents: int | None = None
    questions: int | None = None

    __test__ = False  # for pytest


@dataclass(frozen=True)
class RetrieverSettings:
    """How passages are found.

    Args:
        components: Rankings that are combined; by default all that the index has.
        fusion: z_scores or reciprocal_ranks.
        weights: Factor of each component; 1 by default.
        candidates: Chunks of each component.
    """

    components: list[str] | None = None
    fusion: Fusion = "z_scores"
    weights: list[float] | None = None
    candidates: int = 100


@dataclass(frozen=True)
class Evaluation:
    """What `rag.py evaluate` runs.

    Args:
        data: The test set.
        encoder: Source of the encoder.
        index: How documents are indexed.
        retriever: How passages are found.
        reader: Checkpoint of a modules.SpanReader, whose answers are scored, too.
        generator: A language model that writes the answers, in place of the reader.
        model: Name of the generator at an address.
        grounding: Checkpoint of configs/squad/minilm_grounding.yaml, which judges the answers.
        expect: Metric to expectation, such as `recall@1: ">= 0.96"`.
    """

    data: TestData
    encoder: str = MINILM
    index: IndexSettings = field(default_factory=IndexSettings)
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    reader: str | None = None
    generator: str | None = None
    model: str = "default"
    grounding: str | None = None
    expect: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.reader is not None and self.generator is not None:
            raise UserError("a reader and a generator exclude each other: choose one.")
        for name, expectation in (self.expect or {}).items():
            try:
                is_met(expectation, 0.0)
            except ValueError as error:
                raise UserError(f"expect.{name}: {error}.") from error


class QuestionScores(dict[str, float]):
    """The metrics of one question, by their names."""


def evaluate(
    evaluation: Evaluation,
    encoder: Encoder,
    folder: Path,
    answerer: Answerer | None = None,
    index_folder: Path | None = None,
    progress: Any = None,
    reader: SpanReader | None = None,
    grounding: Classifier | None = None,
) -> dict[str, Any]:
    """Index the documents of a test set, ask its questions, and write a run folder.

    Args:
        evaluation: What to evaluate.
        encoder: Encoder of documents and questions.
        folder: Run folder, for config.yaml, results.json, questions.jsonl and calibration.json.
        answerer: Whose answers from the whole index are scored; none by default.
        index_folder: An index that is reused, or created there; by default in the run folder.
        progress: Called with the number of encoded documents and that of all.
        reader: Whose answers from the relevant document alone are scored; none by default.
        grounding: Judges whether the cited text supports an answer; none by default.

    Returns:
        The contents of results.json.
    """
    config = asdict(evaluation)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    data = evaluation.data
    test_set = read_test_set(data.path, data.format, data.split)
    test_set = test_set.sample(data.documents, data.questions)
    started = time.perf_counter()
    where = index_folder or folder / "index"
    update_index(where, test_set.documents, encoder, evaluation.index, progress=progress)
    index = Index.open(where, verify=False)
    indexed = time.perf_counter()
    retriever = Retriever(index, encoder, **asdict(evaluation.retriever))
    runner = _Runner(retriever, answerer, reader, grounding)
    per_question = runner.run(test_set)
    abstention = runner.abstention()
    metrics = _mean_metrics(per_question) | (abstention.metrics() if abstention else {})
    metrics |= {f"ms/{stage}": round(1000 * float(np.median(t)), 3) for stage, t in runner.seconds}
    metrics["seconds/index"] = round(indexed - started, 3)
    judgments = judge(evaluation.expect or {}, metrics)
    results = {
        "metrics": metrics,
        "intervals": {
            name: bootstrap_interval([scores[name] for scores in per_question])
            for name in ("recall@1", "recall@5", "ndcg@10", "mrr")
        },
        "expect": {name: asdict(judgment) for name, judgment in judgments.items()},
        "documents": len(index.documents),
        "chunks": len(index.chunks),
        "questions": len(per_question),
        "net": encoder.source,
        "parameters": getattr(encoder, "parameters", 0),
        "seconds": round(time.perf_counter() - started, 3),
        "machine": f"{torch.get_num_threads()} threads, {os.cpu_count()} CPU cores "
        f"({platform.machine()})",
        "git_commit": git_commit(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "config": config,
    }
    _write_json_lines(folder / "questions.jsonl", test_set.questions, per_question)
    runner.calibration().write(folder / "calibration.json")
    if abstention:
        (folder / "figures").mkdir(exist_ok=True)
        png = render(lambda: abstention.figure(per_question))
        (folder / "figures/risk_coverage.png").write_bytes(png or b"")
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


class _Runner:
    """Ask the questions of a test set and keep what the metrics need."""

    def __init__(
        self,
        retriever: Retriever,
        answerer: Answerer | None,
        reader: SpanReader | None,
        grounding: Classifier | None,
    ) -> None:
        self.retriever = retriever
        self.reader = reader
        self.grounding = grounding
        self.index = cast(Index, retriever.index)
        self.answering = None
        if answerer is not None:  # every question has an answer here
            self.answering = QuestionAnswering(retriever, answerer, Calibration(threshold=0.0))
        self.names = [document["name"] for document in self.index.documents]
        self.rows = {name: row for row, name in enumerate(self.names)}
        self.answered: list[tuple[float, float]] = []
        self.unanswered: list[tuple[float, float]] = []
        self.times: dict[str, list[float]] = {}

    @property
    def seconds(self) -> list[tuple[str, list[float]]]:
        return list(self.times.items())

    def run(self, test_set: TestSet) -> list[QuestionScores]:
        """Return the metrics of each question."""
        return [self._ask(question) for question in test_set.questions]

    def _ask(self, question: Question) -> QuestionScores:
        clock = _Clock(self.times)
        query = self.retriever.query(question.text)
        clock.stop("encode")
        rankings = self.retriever.rankings(query)
        clock.stop("search")
        ranked = self.retriever.combine(question.text, rankings)
        clock.stop("fuse")
        found = self._documents(ranked)
        scores = QuestionScores(
            {
                **{f"recall@{k}": recall(found, question.relevance, k) for k in (1, 5, 10)},
                "mrr": reciprocal_rank(found, question.relevance),
                "ndcg@10": ndcg(found, question.relevance, 10),
            }
        )
        for name, ranking in rankings.items():
            alone = self._documents(ranking)
            scores[f"{name}/recall@1"] = recall(alone, question.relevance, 1)
            scores[f"{name}/ndcg@10"] = ndcg(alone, question.relevance, 10)
        self.answered.append(features(self.index, query, rankings))
        if len(question.relevance) == 1:
            withheld = self.rows[next(iter(question.relevance))]
            self.unanswered.append(features(self.index, query, rankings, without=withheld))
        if question.answers:
            sentences = rank_sentences(self.index, query, ranked.top(20))
            scores["sentence/recall@1"] = self._is_answered(sentences, question)
        if self.reader is not None and question.answers:
            text = self.index.text(self.rows[next(iter(question.relevance))])
            prediction = self.reader.answer(question.text, text).text
            scores["reader/em"] = exact_match(prediction, question.answers)
            scores["reader/f1"] = token_f1(prediction, question.answers)
        if self.answering is not None and question.answers:
            clock = _Clock(self.times)
            answer = self.answering.answer(query, rankings, ranked.top(self.answering.count))
            clock.stop("answer")
            scores["answer/em"] = exact_match(answer.answer, question.answers)
            scores["answer/f1"] = token_f1(answer.answer, question.answers)
            if answer.citations:
                scores["citation/precision"] = citation_precision(answer.citations, question)
                if self.grounding is not None:
                    scores["answer/grounded"] = self._is_grounded(question.text, answer)
        return scores

    def _documents(self, ranking: Ranking) -> list[str]:
        best = best_per_group(ranking, self.index.chunks["document"]).top(DEPTH)
        return [self.names[row] for row in best.rows.tolist()]

    def _is_answered(self, sentences: Ranking, question: Question) -> float:
        """Whether the first sentence is of a relevant document and contains an answer."""
        if not len(sentences.rows):
            return 0.0
        document, _, _, text = self.index.sentence(int(sentences.rows[0]))
        return float(document in question.relevance and any(a in text for a in question.answers))

    def _is_grounded(self, question: str, answer: Answer) -> float:
        """Return 1 if the text around one of the citations supports the answer, else 0."""
        assert self.grounding is not None
        answered = statement(question, answer.answer)
        pairs = [
            (surroundings(self.index.text(self.rows[one.document]), one.start, one.end), answered)
            for one in answer.citations
        ]
        supported = self.grounding.probabilities(pairs)[:, 1]  # (citations,)
        return float(supported.max() >= SUPPORTED)

    def abstention(self) -> "Abstention | None":
        """Return the scores of questions with and without their document, if any has only one.

        The regression is fitted on the even questions and gives the scores of the odd ones.
        """
        if not self.unanswered:
            return None
        answered, unanswered = np.array(self.answered), np.array(self.unanswered)
        fitted = fit_calibration(answered[::2], unanswered[::2])
        positive, negative = (
            np.array([fitted.probability(*row) for row in rows[1::2]])
            for rows in (answered, unanswered)
        )
        return Abstention(positive, negative, fitted.threshold)

    def calibration(self) -> Calibration:
        """Return the calibration of all questions."""
        if not self.unanswered:
            return Calibration()
        return fit_calibration(np.array(self.answered), np.array(self.unanswered))


class Abstention(NamedTuple):
    """Scores of questions whose document is in the index, and of those where it is withheld."""

    answered: np.ndarray  # (N,)
    withheld: np.ndarray  # (M,)
    threshold: float

    def metrics(self) -> dict[str, float]:
        """Return how well the scores separate the two."""
        right = (self.answered >= self.threshold).sum() + (self.withheld < self.threshold).sum()
        return {
            "abstention/auroc": area_under_roc(self.answered, self.withheld),
            "abstention/accuracy": float(right / (len(self.answered) + len(self.withheld))),
        }

    def figure(self, per_question: Sequence[Mapping[str, float]]) -> Figure:
        """Draw the fraction of wrong answers against that of answered questions.

        Without its document every answer to a question is wrong.

        Args:
            per_question: Metrics of all questions, of which the odd ones were scored.
        """
        scores = np.concatenate([self.answered, self.withheld])
        curves = {}
        for name, metric in RIGHT.items():
            found = [question.get(metric, np.nan) for question in per_question][1::2]
            if not np.isnan(found).any():
                wrong = np.concatenate([1 - np.array(found), np.ones(len(self.withheld))])
                curves[name] = wrong
        return risk_coverage_figure(scores, curves, self.threshold)


def citation_precision(citations: Sequence[Citation], question: Question) -> float:
    """Return the fraction of right citations.

    A right one is of a relevant document, and contains an answer or is part of one.
    """
    right = [
        one.document in question.relevance
        and any(answer in one.text or one.text in answer for answer in question.answers)
        for one in citations
    ]
    return sum(right) / len(right)


class _Clock:
    def __init__(self, times: dict[str, list[float]]) -> None:
        self.times = times
        self.last = time.perf_counter()

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.times.setdefault(stage, []).append(now - self.last)
        self.last = now


def _mean_metrics(per_question: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: float(np.mean([scores[name] for scores in per_question if name in scores]))
        for name in dict.fromkeys(name for scores in per_question for name in scores)
    }


def _write_json_lines(
    path: Path, questions: Sequence[Question], scores: Sequence[Mapping[str, float]]
) -> None:
    with path.open("w", encoding="utf-8") as file:
        for question, found in zip(questions, scores, strict=True):
            record = {"question": question.text, **found}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def summary(results: Mapping[str, Any]) -> list[str]:
    """Return the lines that report an evaluation."""
    metrics, intervals = results["metrics"], results["intervals"]
    lines = [
        f"{results['questions']:,} questions, {results['documents']:,} documents, "
        f"{results['chunks']:,} chunks"
    ]
    for name, value in metrics.items():
        bounds = intervals.get(name)
        shown = "" if bounds is None else f"  (95% interval {bounds[0]:.3f} to {bounds[1]:.3f})"
        lines.append(f"  {name:<28} {value:.3f}{shown}")
    for name, judgment in results["expect"].items():
        found = Judgment(**judgment)
        lines.append(f"expected {name} {found.expected}: {found.verdict}")
    return lines
