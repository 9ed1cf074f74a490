"""safety.evaluate_guard: the worst AUROC of left-out sources and forms, and refused prompts."""

import json
from pathlib import Path

import pytest

from safety import evaluate_guard, guard_data
from safety.evaluate_guard import FORMS, evaluate, read_table
from safety.guard import load_guard
from tests.support.safety_data import make_guard, make_sources


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data_dir = make_sources(tmp_path / "data", monkeypatch)
    return guard_data.main(["--output", str(tmp_path / "guard"), "--data_dir", str(data_dir)])


@pytest.mark.slow
def test_results_are_in_a_run_folder(tmp_path: Path, tables: Path) -> None:
    guard, other = make_guard(tmp_path / "a.ckpt"), make_guard(tmp_path / "b.ckpt", seed=1)
    arguments = ["--guard", str(guard), "--data", str(tables)]
    left_out = [f"--left_out={source}={other}" for source in ("advbench", "harmbench")]
    folder = evaluate_guard.main([*arguments, *left_out])
    assert folder == Path("runs/guard_evaluation/001")
    results = json.loads((folder / "results.json").read_text())
    metrics = results["metrics"]
    parts = ["without_advbench", "without_harmbench", *FORMS]
    assert metrics["guard/auroc"] == min(metrics[f"guard/auroc_{part}"] for part in parts)
    assert 0 <= metrics["guard/refused_harmless"] <= 1
    assert results["left_out"] == {"advbench": str(other), "harmbench": str(other)}
    assert "| guard/auroc |" in (folder / "report.md").read_text()
    only_own = json.loads((evaluate_guard.main(arguments) / "results.json").read_text())["metrics"]
    assert "guard/auroc" not in only_own
    assert only_own.items() < metrics.items()


@pytest.mark.slow
def test_perfect_guard_has_an_auroc_of_one_and_refuses_nothing_harmless(
    tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_table(tables / "test.csv")
    truth = {row.text: float(row.label == "harmful") for row in rows}
    monkeypatch.setattr(
        evaluate_guard, "harm_probabilities", lambda _, texts: [truth[text] for text in texts]
    )
    metrics = evaluate(load_guard(make_guard(tmp_path / "guard.ckpt")), rows)
    refused = metrics.pop("guard/refused_harmless")
    assert refused == 0
    assert set(metrics.values()) == {1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--left_out", "dolly=a.ckpt"), "is not SOURCE=PATH with a source of advbench and"),
        (("--data", "missing"), "cannot read missing/train.csv"),
    ],
)
def test_mistakes_are_user_errors(tables: Path, capsys, arguments, message) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate_guard.main(["--guard", "a.ckpt", "--data", str(tables), *arguments])
    assert message in capsys.readouterr().err
