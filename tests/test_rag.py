"""rag.py: index, ask, chat and evaluate, from the command line."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rag
from retrieval import encoders
from retrieval.answering import NOT_FOUND
from safety.guard import Guard
from tests.support import ROOT
from tests.support.retrieval import HashedWords, small_documents
from tests.support.safety_data import make_guard


@pytest.fixture(autouse=True)
def _fast_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "SentenceVectors", HashedWords)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Return a folder with three documents."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for document in small_documents():
        (folder / document.name).write_text(document.text)
    (folder / "broken.pdf").write_text("%PDF")
    return folder


def index(documents: Path, *flags: str) -> None:
    rag.main(["index", str(documents), "--output", "index", *flags])


def ask(question: str, *flags: str) -> dict:
    return rag.main(["ask", question, "--index", "index", *flags]).as_dict()


def test_help_does_not_import_torch() -> None:
    code = "import sys, rag; rag.parser().format_help(); print({'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_answer_cites_the_characters_of_a_document(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(documents)
    printed = capsys.readouterr().out
    assert "3 added, 0 updated, 0 deleted, 0 unchanged, 1 skipped" in printed
    assert "broken.pdf: damaged PDF" in printed
    answer = ask("How long lives an oak?", "--threshold", "0", "--json")
    assert answer == json.loads(capsys.readouterr().out)
    assert answer["answer"] == "An oak lives for five hundred years."
    (citation,) = answer["citations"]
    text = Path(citation["document"]).read_text()
    assert text[citation["start"] : citation["end"]] == citation["text"] == answer["answer"]
    assert 0 < answer["score"] < 1


def test_below_the_threshold_there_is_no_answer(documents: Path) -> None:
    index(documents)
    assert ask("How long lives an oak?", "--threshold", "1") == {
        "answer": NOT_FOUND,
        "citations": [],
        "score": pytest.approx(0.5, abs=0.5),
    }
    found, missing = (ask(q)["score"] for q in ("How long lives an oak?", "Who won the cup?"))
    assert found > missing


def test_condition_and_unchanged_documents(documents: Path, capsys) -> None:
    index(documents)
    index(documents)
    assert "0 added, 0 updated, 0 deleted, 3 unchanged" in capsys.readouterr().out
    answer = ask("How long lives an oak?", "--threshold", "0", "--where", "document=*.md")
    assert answer["citations"][0]["document"].endswith("animals.md")


def test_chat_answers_each_line(
    documents: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index(documents)
    monkeypatch.setattr(sys, "stdin", io.StringIO("How long lives an oak?\n\nIs chalk soft?\n"))
    capsys.readouterr()
    rag.main(["chat", "--index", "index", "--threshold", "0"])
    printed = capsys.readouterr().out
    assert printed.index("An oak lives") < printed.index("Chalk is soft")


def test_guard_refuses_questions_and_answers(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    index(documents)
    guard = str(make_guard(tmp_path / "guard.ckpt"))
    judge, answer = Guard(guard).judge, "An oak lives for five hundred years."
    (harm,) = judge([answer])
    words = ("good", "bad", "film", "the", "was")
    questions = [f"{word} {word} {word} How long lives an oak?" for word in words]
    question = min(questions, key=lambda text: judge([text])[0])
    (asked,) = judge([question])
    assert asked < harm
    options = ["--threshold", "0", "--guard", guard, "--guard_threshold"]
    assert ask(question, *options, "1")["answer"] == answer
    for what, threshold in (("question", asked), ("answer", harm)):
        with pytest.raises(SystemExit, match="2"):
            ask(question, *options, f"{threshold}")
        assert f"the guard refuses the {what}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{question}\n"))
    rag.main(["chat", "--index", "index", *options, f"{asked}"])
    assert "the guard refuses the question" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "Why?", "--index", "missing"], "missing is not an index"),
        (["ask", " ", "--index", "index"], "the question is empty"),
        (["index", "missing.txt"], "no file or folder matches"),
        (["index", ".", "--max_tokens", "3"], "max_tokens must be at least 8"),
        (["evaluate", "--config", "missing.yaml"], "no such file"),
    ],
)
def test_user_error_is_one_message(
    arguments: list[str], message: str, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        rag.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_evaluate_writes_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qas = [{"id": "1", "question": "What lives long?", "answers": [{"text": "oak"}]}]
    paragraphs = [
        {"context": "An oak lives long.", "qas": qas},
        {
            "context": "Moss is wet. It is small.",
            "qas": [qas[0] | {"question": "What is wet moss?"}],
        },
    ]
    data = {"data": [{"title": "Plants", "paragraphs": paragraphs}]}
    (tmp_path / "plants.json").write_text(json.dumps(data))
    (tmp_path / "plants.yaml").write_text(
        'expect: {recall@1: ">= 0.9", answer/f1: ">= 0.9"}\ndata: {path: plants.json}\n'
    )
    folder = rag.main(["evaluate", "--config", "plants.yaml", "--data.format", "squad"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"run folder: {folder}"
    assert folder == Path("runs/plants/001")
    results = json.loads((folder / "results.json").read_text())
    assert results["metrics"]["recall@1"] == results["metrics"]["mrr"] == 1.0
    assert results["metrics"]["sentence/recall@1"] == 0.5
    assert results["expect"]["recall@1"]["verdict"] == "met"
    assert results["expect"]["answer/f1"]["verdict"] == "not judged"
    assert {"config.yaml", "questions.jsonl", "calibration.json"} <= {
        path.name for path in folder.iterdir()
    }
    assert (folder / "figures/risk_coverage.png").read_bytes().startswith(b"\x89PNG")

    # The same questions over an index of single words, which finds nothing better.
    other = rag.main(["evaluate", "--config", "plants.yaml", "--retriever.components", "[sparse]"])
    output = rag.main(["compare", str(folder), str(other)])
    printed = capsys.readouterr().out
    assert "plants/001" in printed
    table = (output / "comparison.md").read_text()
    assert "| recall@1 | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000); +0.000 (" in table
    assert (output / "comparison.png").is_file()
    lines = (other / "questions.jsonl").read_text().splitlines()
    (other / "questions.jsonl").write_text(lines[0])
    with pytest.raises(SystemExit, match="2"):
        rag.main(["compare", str(folder), str(other)])
    assert "was evaluated on other questions" in capsys.readouterr().err
