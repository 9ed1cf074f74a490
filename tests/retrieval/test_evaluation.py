"""Metrics equal those of trec_eval; test sets of three forms; configs of rag.py evaluate."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.errors import UserError
from engine.run.expectations import is_met
from retrieval.answering import Citation
from retrieval.confidence import Calibration, fit_calibration
from retrieval.config import read_evaluation
from retrieval.evaluation import Abstention, citation_precision
from retrieval.metrics import area_under_roc, bootstrap_interval, ndcg, recall, reciprocal_rank
from retrieval.test_sets import Question, read_test_set
from tests.support import ROOT
from tests.support.configs import RAG, name


def test_metrics_equal_those_of_trec_eval() -> None:
    import pytrec_eval

    draw = np.random.default_rng(0)
    names = [f"d{number}" for number in range(30)]
    judged, run, ranked = {}, {}, {}
    for query in map(str, range(20)):
        grades = draw.choice([0, 0, 0, 1, 2], size=30).tolist()
        judged[query] = dict(zip(names, grades, strict=True)) | {"d0": 1}
        order = draw.permutation(names)[:20].tolist()
        ranked[query] = order
        run[query] = {document: float(-rank) for rank, document in enumerate(order)}
    measures = {"ndcg_cut.10", "recall.1,5", "recip_rank"}
    reference = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    for query, expected in reference.items():
        found = ranked[query], judged[query]
        assert ndcg(*found, 10) == pytest.approx(expected["ndcg_cut_10"])
        assert recall(*found, 1) == pytest.approx(expected["recall_1"])
        assert recall(*found, 5) == pytest.approx(expected["recall_5"])
        assert reciprocal_rank(*found) == pytest.approx(expected["recip_rank"])


def test_area_under_roc_counts_ties_half() -> None:
    assert area_under_roc(np.array([2.0, 3]), np.array([1.0, 2])) == 0.875


def test_citations_are_right_in_a_relevant_document_with_the_answer() -> None:
    question = Question("Who?", {"a": 1}, ("Ada Lovelace",))
    citations = [
        Citation("a", 0, 30, "It was Ada Lovelace who wrote."),
        Citation("a", 7, 10, "Ada"),
        Citation("a", 40, 45, "Babbage"),
        Citation("b", 0, 12, "Ada Lovelace"),
    ]
    assert citation_precision(citations, question) == 0.5


def test_risk_of_answers_above_the_threshold() -> None:
    abstention = Abstention(np.array([0.9, 0.6]), np.array([0.7, 0.1]), 0.65)
    assert abstention.metrics() == {"abstention/auroc": 0.75, "abstention/accuracy": 0.5}
    right = [{}, {"recall@1": 1.0}, {}, {"recall@1": 0.0}]
    figure = abstention.figure([{"recall@1": 0.0} | one for one in right])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["first document: 50.0% wrong", "threshold 0.65: 50.0% answered"]


def test_bootstrap_interval_contains_the_mean() -> None:
    low, high = bootstrap_interval([0.0, 1.0] * 50)
    assert 0.35 < low < 0.5 < high < 0.65


def test_fitted_calibration_separates_and_is_read_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    answered, unanswered = (draw.normal(mean, 0.1, (200, 2)) for mean in (0.7, 0.4))
    fitted = fit_calibration(answered, unanswered)
    fitted.write(tmp_path / "calibration.json")
    found = Calibration.read(tmp_path / "calibration.json")
    assert found == fitted
    right = [found.probability(*row) >= found.threshold for row in answered]
    wrong = [found.probability(*row) >= found.threshold for row in unanswered]
    assert np.mean(right) > 0.95 > 0.05 > np.mean(wrong)
    (tmp_path / "calibration.json").write_text("[]")
    with pytest.raises(UserError, match="cannot read the calibration"):
        Calibration.read(tmp_path / "calibration.json")


def test_squad_form(tmp_path: Path) -> None:
    question = {"id": "1", "question": "What hunts?", "answers": [{"text": "An owl"}]}
    paragraph = {"context": "An owl hunts.", "qas": [question]}
    content = {"data": [{"title": "Owls", "paragraphs": [paragraph, paragraph]}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = read_test_set(str(tmp_path / "a.json"), "squad")
    assert [document.name for document in found.documents] == ["Owls#0", "Owls#1"]
    assert found.questions[1].relevance == {"Owls#1": 1}
    assert len(found.sample(1, None).questions) == 1


def test_beir_form(tmp_path: Path) -> None:
    corpus = {"_id": "d1", "title": "Owl", "text": "It hunts."}
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write(json.dumps(corpus))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "owl"}\n')
    (tmp_path / "qrels-test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n")
    found = read_test_set(str(tmp_path), "beir")
    assert found.documents[0].text == "Owl\n\nIt hunts."
    assert [(q.text, q.relevance) for q in found.questions] == [("owl", {"d1": 1})]
    with pytest.raises(UserError, match=r"neither qrels-dev\.tsv"):
        read_test_set(str(tmp_path), "beir", "dev")


def test_cranfield_form(tmp_path: Path) -> None:
    (tmp_path / "cran.all.1400").write_text(
        ".I 1\n.T\nwings in\nair\n.A\nsmith\n.B\nj\n.W\nthey lift .\n"
        ".I 2\n.T\nheat\n.W\nit flows .\n"
    )
    (tmp_path / "cran.qry").write_text(".I 003\n.W\nwhat lifts ?\n.I 007\n.W\nwhat flows ?\n")
    (tmp_path / "cranqrel").write_text("1 1 2\n1 2 -1\n2 2 4\n")
    found = read_test_set(str(tmp_path), "cranfield")
    assert [d.text for d in found.documents] == [
        "wings in air\n\nthey lift .",
        "heat\n\nit flows .",
    ]
    assert [(q.text, q.relevance) for q in found.questions] == [
        ("what lifts ?", {"1": 1}),
        ("what flows ?", {"2": 1}),
    ]


@pytest.mark.parametrize("config", RAG, ids=name)
def test_config_of_an_evaluation(config: Path) -> None:
    text = config.read_text()
    assert text.startswith("# Day 4")
    assert f"rag.py evaluate --config configs/{name(config)}.yaml" in text
    evaluation = read_evaluation(config)
    assert evaluation.expect
    assert all(isinstance(is_met(e, 0.0), bool) for e in evaluation.expect.values())
    assert f"rag/{config.stem}" in (ROOT / "docs/course.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["data"]["path"] == evaluation.data.path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {path: a.json}\nspeed: 3\n", "speed"),
        ("data: {path: a.json, documents: many}\n", "documents"),
        ("data: {path: a.json}\nretriever: {fusion: sum}\n", "fusion"),
        ("data: {path: a.json}\nexpect: {mrr: high}\n", "'high' is not a relation"),
        ("encoder: x\n", "data"),
    ],
)
def test_invalid_config_is_one_message(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_evaluation(tmp_path / "a.yaml")
