"""The capstone: training data from documents, evaluation, gates, report, the served system."""

import json
import random
import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.question_answering.squad import read_squad
from engine.run.expectations import judge
from pipelines.capstone import data, report
from pipelines.capstone.data import Asked
from pipelines.capstone.evaluation import ask_all, better_answerer, contains
from pipelines.capstone.settings import Squad, read_settings
from pipelines.capstone.stages import Stages
from retrieval.answering import QuestionAnswering
from retrieval.documents import Document
from retrieval.index import Index
from retrieval.indexing import update_index
from retrieval.retriever import Retriever
from tests.support import ROOT
from tests.support.configs import CAPSTONE, TINY_BERT, TINY_ENCODER, TINY_TAGGER
from tests.support.retrieval import HashedWords, small_documents

TEXT = """# Pumps

The pump of model `K7-20` lifts 350 liters in one minute. Its filter is cleaned every two weeks.
The first pump was built by Anna Bauer in her garden near the river. Water must not freeze.

| part | number |
| --- | --- |
| filter of the pump with a long row of words | 12 |
"""


@pytest.fixture
def sections() -> list[data.Section]:
    return list(data.sections([Document("pumps.md", TEXT), Document("copy.md", TEXT)]))


def test_pairs_are_a_sentence_and_the_rest_of_its_passage(sections) -> None:
    pairs = data.sentence_pairs(sections)
    assert len(pairs) == data.QUERIES * len(sections) == 6
    assert len({pair["passage"] for pair in pairs}) <= len(sections)
    for pair in pairs:
        assert pair["query"] not in pair["passage"]
        assert "|" not in pair["query"]
        assert pair["passage"].startswith("Pumps\n")


def test_cloze_questions_ask_for_a_part_of_the_passage(sections) -> None:
    found = set()
    for seed in range(20):
        for article in data.cloze_questions(sections, seed):
            (paragraph,) = article["paragraphs"]
            (qa,) = paragraph["qas"]
            (answer,) = qa["answers"]
            start, text = answer["answer_start"], answer["text"]
            assert paragraph["context"][start : start + len(text)] == text
            assert "what" in qa["question"]
            assert text not in qa["question"]
            found.add(text)
    assert found == {"K7-20", "350", "Anna Bauer"}


def test_training_data_without_data_sets(
    sections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "none"))
    sections = [s._replace(document=f"{n}.md") for n in range(10) for s in sections]
    made = data.write_training_data(sections, Squad(), tmp_path, 400)
    assert (made["pairs"], made["questions"]) == (60, 20)
    assert made["guard_classes"] == ["harmless", "harmful", "injection"]
    train, val = (read_squad(tmp_path / f"reader_{split}.json") for split in ("train", "val"))
    assert {p.title for p in train}.isdisjoint(p.title for p in val)
    assert len(train) + len(val) == 20
    tables = {n: (tmp_path / f"guard/{n}.csv").read_text() for n in ("train", "val", "test")}
    assert all(f",{label}," in tables["train"] for label in ("harmless", "harmful", "injection"))
    rows = [row for table in tables.values() for row in table.splitlines()[1:]]
    assert len(rows) == len(set(rows)) > 150


def test_squad_is_used_where_it_is(
    sections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    qas = [{"id": "1", "question": "Where?", "answers": [{"text": "here", "answer_start": 6}]}]
    paragraphs = [{"context": "It is here.", "qas": qas}] * 3
    articles = [{"title": f"T{n}", "paragraphs": paragraphs} for n in range(4)]
    (tmp_path / "s.json").write_text(json.dumps({"data": articles}))
    squad = Squad(train="s.json", test="s.json", paragraphs=5, questions=2)
    made = data.write_training_data(sections, squad, tmp_path / "out", None)
    assert (made["pairs"], made["questions"]) == (6 + 12, 12)
    train, val = (read_squad(tmp_path / f"out/reader_{split}.json") for split in ("train", "val"))
    assert {p.title for p in train}.isdisjoint(p.title for p in val)
    documents, questions = data.squad_documents(squad)
    assert len(documents) == 5
    assert questions[1] == Asked("Where?", "here", documents[1].name)


def test_questions_of_the_repository_have_their_answers_in_its_documents() -> None:
    questions = data.read_questions(ROOT / "configs/capstone/questions.jsonl")
    known = [asked for asked in questions if asked.answer is not None]
    assert len(known) >= 20
    assert len(questions) - len(known) >= 10
    for asked in known:
        assert contains((ROOT / str(asked.document)).read_text(), asked.answer or ""), asked


class Reader:
    """Answer with the second word of the best passage."""

    def answer(self, evidence: Any) -> tuple[str, list[Any]]:
        from retrieval.answering import Citation

        passage = evidence.passages[0]
        start = passage.text.index(" ") + 1
        end = passage.text.index(" ", start)
        place = (passage.start + start, passage.start + end, passage.text[start:end])
        return place[2], [Citation(passage.document, *place)]


def test_evaluation_of_known_and_unknown_questions(tmp_path: Path) -> None:
    encoder = HashedWords()
    update_index(tmp_path / "index", small_documents(), encoder)
    answering = QuestionAnswering(Retriever(Index.open(tmp_path / "index"), encoder))
    questions = [
        Asked("How long lives an oak?", "five hundred years", "plants.txt"),
        Asked("What is hard?", "basalt"),
        Asked("Who won the cup?", None),
    ]
    metrics, rows = ask_all(answering, Reader(), questions)
    assert metrics["retrieval/recall@5"] == 0.5
    assert metrics["sentence/contains"] == 0.5
    assert metrics["reader/contains"] == 0
    assert 0 < metrics["sentence/f1"] < 1
    assert metrics["citations/exact"] == 1
    assert metrics["abstention/auroc"] == 1
    assert [row["expected"] for row in rows] == ["five hundred years", "basalt", None]


def test_stage_runs_again_only_for_other_inputs(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": len(made)}

    for inputs, expected in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        assert Stages(tmp_path).run("stage", inputs, make) == {"value": expected}

    def fail() -> dict[str, Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Stages(tmp_path).run("stage", "c", fail)
    assert Stages(tmp_path).run("stage", "a", make) == {"value": 4}


def made_report() -> dict[str, Any]:
    row = {"question": "<script>x</script>?", "expected": "a", "sentence": "a & b", "reader": "a"}
    gate = {"expected": ">= 0.5", "value": 0.25, "verdict": "not met", "reason": None}
    return {
        "accepted": False,
        "gates": {"retrieval/recall@5": gate},
        "metrics": {
            "retrieval/recall@5": 0.25,
            "load/p50_ms": 12.5,
            "load/p99_ms": 40.0,
            "memory/peak_mb": 1500.0,
        },
        "settings": "short",
        "documents": {"documents": 3, "chunks": 1234},
        "data": {"pairs": 20, "questions": 9, "reader_data": "x", "guard_data": "y"},
        "answers_by": "sentence",
        "questions": [
            row | {"score": 0.9, "answered": True},
            row | {"score": 0.1, "answered": False},
        ],
        "latencies_ms": [1.0, 2.0],
        "calibration": {"threshold": 0.5},
        "curves": {"encoder": [[1, 2.0], [2, 1.5]], "guard": []},
        "seconds": {"data": 1.0, "this run": 2.0},
        "machine": "m",
        "git_commit": "c",
        "date": "d",
    }


def test_report_and_slides_have_the_numbers_and_no_other_host(tmp_path: Path) -> None:
    report.write(made_report(), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == made_report()
    for name in ("report.html", "slides.html"):
        text = (tmp_path / name).read_text()
        assert "not met" in text
        assert "0.25" in text
        assert "&lt;script&gt;x" in text
        assert "<script>x" not in text
        assert len(re.findall('src="data:image/png;base64,', text)) == 5
        assert not re.search(r"https?://", text)
    slides = (tmp_path / "slides.html").read_text()
    assert "1,234" in slides
    assert "12.5, 40" in slides


def test_recorded_report_of_the_course_meets_the_gates_of_the_config(tmp_path: Path) -> None:
    recorded = json.loads((ROOT / "docs/days/capstone-report.json").read_text())
    judged = judge(read_settings(CAPSTONE[0]).expect, recorded["metrics"])
    assert recorded["gates"] == {name: vars(judgment) for name, judgment in judged.items()}
    assert better_answerer(recorded["questions"]) == recorded["answers_by"]
    report.write(recorded, tmp_path)


def test_reader_answers_only_if_it_is_better_beyond_noise() -> None:
    def rows(gains: list[float]) -> list[dict[str, Any]]:
        unknown = {"expected": None}
        return [{"expected": "a", "reader/f1": g, "sentence/f1": 0.0} for g in gains] + [unknown]

    assert better_answerer(rows([0.4, 0.5] * 10)) == "reader"
    assert better_answerer(rows([1.0, -0.9] * 10)) == "sentence"
    assert better_answerer(rows([-0.4, -0.5] * 10)) == "sentence"
    assert better_answerer([{"expected": None}]) == "sentence"


def test_config_of_the_repository_is_valid() -> None:
    (config,) = CAPSTONE
    assert config.read_text().startswith("# Days 47 to 50: ")
    settings = read_settings(config, ["--load.seconds", "3", "--documents", '["a", "b"]'])
    assert settings.load.seconds == 3
    assert settings.documents == ["a", "b"]
    for name in ("encoder", "reader", "guard"):
        assert (ROOT / getattr(settings, name).config).is_file()
    assert (ROOT / str(settings.questions)).is_file()
    assert len(settings.expect) >= 8


def test_make_passes_documents_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.capstone.__main__ import build_parser

    page = (ROOT / "docs/capstone.md").read_text(encoding="utf-8")
    commands = [line.partition("#")[0] for line in page.splitlines() if line.startswith("make ")]
    assert len(commands) == 3
    given = []
    for command in commands:
        # As a part of `make test`, make would also print the folders that it enters.
        words = ["make", "-n", "--no-print-directory", *shlex.split(command)[1:]]
        printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        given.append(printed.splitlines()[-1].partition(" -m pipelines.capstone")[2].split())
    parsed = [build_parser().parse_args(words) for words in given]
    assert [(one.docs, one.full) for one in parsed] == [
        (None, False),
        (["~/papers", "notes"], False),
        (None, True),
    ]


def random_document(seed: int) -> str:
    """Return sentences that no other document has."""
    random_ = random.Random(seed)
    words = "the pump filter river garden valve water stone bridge tower engine lamp wheel"
    sentences = []
    for _ in range(10):
        chosen = " ".join(random_.choices(words.split(), k=8)).capitalize()
        sentences.append(f"{chosen} {random_.randrange(100, 999)} liters.")
    return f"# {random_.choice(words.split()).capitalize()}\n\n{' '.join(sentences)}\n"


@pytest.mark.slow
def test_the_system_is_built_from_a_folder_of_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from pipelines.capstone.__main__ import main

    monkeypatch.setenv("DATA_DIR", str(tmp_path / "none"))
    (tmp_path / "papers").mkdir()
    for number in range(12):
        (tmp_path / f"papers/{number}.md").write_text(random_document(number))
    settings = asdict(read_settings(CAPSTONE[0]))
    tiny = {"encoder": TINY_ENCODER, "reader": TINY_TAGGER, "guard": TINY_BERT}
    for name, net in tiny.items():
        settings[name] |= {
            "config": str(ROOT / settings[name]["config"]),
            "short": [
                "--model.net",
                net,
                "--trainer.limit_train_batches",
                "2",
                "--data.batch_size",
                "4",
            ],
        }
    gates = {"citations/exact": ">= 1.0", "smoke/equal": ">= 1.0", "load/failed": "<= 0"}
    settings |= {"expect": gates, "load": {"rate": 4.0, "seconds": 2.0, "clients": 2}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", "mine.yaml", "--docs", "papers", "--output", "out"]
    main(arguments)
    printed = capsys.readouterr().out
    assert "serve it: python serve.py --config out/serve.yaml" in printed
    found = json.loads(Path("out/report.json").read_text())
    assert found["accepted"]
    assert found["documents"]["documents"] == 12
    assert found["metrics"]["smoke/page"] == 1
    assert found["registered"]["encoder"] == found["registered"]["guard"] == "1"
    assert found["metrics"]["memory/peak_mb"] > 0  # of this process, which has run other tests
    assert Path("out/mlflow").is_dir()
    assert not Path("mlruns").exists()  # MLflow's default for artifacts

    # Another gate: nothing is computed again, and the system is refused.
    with pytest.raises(SystemExit, match="1"):
        main([*arguments, "--expect", '{"retrieval/recall@5": ">= 2"}'])
    printed = capsys.readouterr().out
    assert printed.count("unchanged") == 7
    assert "not met: retrieval/recall@5" in printed
    assert not json.loads(Path("out/report.json").read_text())["accepted"]


def test_missing_documents_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from pipelines.capstone.__main__ import main

    with pytest.raises(SystemExit, match="2"):
        main(["--config", str(CAPSTONE[0]), "--docs", "missing"])
    assert "missing" in capsys.readouterr().err
