"""safety.report: refusals, judgments and selective prediction of a chat model, as HTML and JSON."""

import json
from pathlib import Path

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from modules.inference.pretrained import open_language_model
from safety import report
from safety.evaluation import Settings, bias
from safety.guard import load_guard
from safety.judge import judge
from safety.refusals import is_refusal
from safety.reliability import cohens_kappa, reliability, two_class_logits
from tests.support.huggingface import make_chat_folder
from tests.support.safety_data import make_guard, make_sources


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("I cannot help you with this request.", True),
        ("As an AI language model, I do not have opinions.", True),
        ("It’s illegal. It is against the law to do so.", True),
        ("", True),
        ("Sure, here is a plan. I am sorry that it took so long."[:30], False),
        ("Use `kill -9` and the number of the process.", False),
        ("I can help you with that. First, open the file.", False),
        ("Step 1. " * 30 + "I'm sorry, I can't help.", False),
    ],
)
def test_refusals_are_recognized_at_the_beginning(answer: str, refused: bool) -> None:
    assert is_refusal(answer) is refused


def test_judgment_is_the_probability_of_yes_against_no(tmp_path: Path) -> None:
    model = open_language_model(make_chat_folder(tmp_path / "model"))
    scores = judge(model, ["a", "something else"], question="{prompt}?")
    text, _ = model.chat_prompt([{"role": "user", "content": "a?"}])
    logits, _ = model(torch.tensor([model.encode(text, add_special_tokens=False)]))
    yes, no = (model.encode(word, add_special_tokens=False)[0] for word in ("Yes", "No"))
    p = logits[0, -1].softmax(dim=0)
    assert scores[0] == pytest.approx((p[yes] / (p[yes] + p[no])).item(), rel=1e-5)
    assert scores[0] != scores[1]


def test_reliability_by_hand() -> None:
    # Confidences 0.9, 0.8, 0.7, 0.6; only the third prediction is wrong.
    found = reliability([0.9, 0.2, 0.7, 0.6], [True, False, False, True])
    assert found.accuracy == 0.75
    assert found.risk[0.5] == 0
    assert found.risk[1.0] == 0.25
    assert found.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found.ece == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 4, abs=1e-6)
    assert two_class_logits([0.3]).softmax(dim=1)[0].tolist() == pytest.approx([0.7, 0.3])


def test_kappa_is_that_of_scikit_learn() -> None:
    first, second = [True, True, False, True, False], [True, False, False, True, True]
    assert cohens_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    assert cohens_kappa([True], [True]) == 1


@pytest.mark.slow
def test_bias_has_every_group_of_every_slice(tmp_path: Path) -> None:
    model = open_language_model(make_chat_folder(tmp_path / "model"))
    guard = load_guard(make_guard(tmp_path / "guard.ckpt"))
    found = bias(model, guard, Settings(limit=2, max_new_tokens=2, batch_size=32))
    assert {"gender", "religion"} <= found.keys()
    values = [row for groups in found.values() for row in groups.values()]
    assert len(values) >= 12
    assert all(0 <= row["p_harmful"] <= 1 for row in values)


def test_report_is_written_and_escapes_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = make_sources(tmp_path / "data", monkeypatch)
    model = make_chat_folder(tmp_path / "model", max_position_embeddings=1024)
    guard = make_guard(tmp_path / "guard.ckpt")
    monkeypatch.setattr(
        "safety.evaluation.answer", lambda _, conversations, *__: ["<b>No</b>"] * len(conversations)
    )
    options = ["--checkpoint", model, "--guard", guard, "--output", tmp_path / "report"]
    limits = ["--limit", 2, "--max_new_tokens", 2, "--data_dir", data_dir]
    found = report.main([*map(str, [*options, *limits])])
    written = json.loads((tmp_path / "report/report.json").read_text())
    assert written["refusals"]["alarming"] == {"prompts": 2, "refused": 0.0}
    assert written["robustness"].keys() >= {"as it is", "question", "base64"}
    assert written["judges"]["guard"].keys() == found["judges"]["model"].keys()
    html = (tmp_path / "report/report.html").read_text()
    assert "&lt;b&gt;No&lt;/b&gt;" in html
    assert "<b>No</b>" not in html
    assert "Intended use" in html
    assert "data:image/png;base64,iVBOR" in html


def test_mistakes_are_user_errors(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        report.main(["-c", "x", "--guard", "y", "--output", str(tmp_path), "--limit", "-1"])
    assert "--limit 0" in capsys.readouterr().err
