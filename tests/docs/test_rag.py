"""The commands and the code of docs/rag.md run as printed, with a fast encoder."""

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import rag
from retrieval import encoders
from tests.support import ROOT
from tests.support.retrieval import HashedWords

PAGE = (ROOT / "docs/rag.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _small_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "SentenceVectors", HashedWords)
    (tmp_path / "docs").mkdir()
    for name in ("scaling.md", "serving.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in block("bash").strip().splitlines():
        text, _, command = line.rpartition(" | ")
        monkeypatch.setattr(sys, "stdin", io.StringIO(text.removeprefix("echo ").strip('"') + "\n"))
        words = shlex.split(command)
        assert words[:2] == ["python", "rag.py"]
        rag.main(words[2:])


def test_code(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python"), {})
    assert capsys.readouterr().out.count("docs/scaling.md") >= 1
