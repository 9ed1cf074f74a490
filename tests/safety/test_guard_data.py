"""safety.guard_data: no prompt and no rule is in both training and test."""

from collections import Counter
from pathlib import Path

import pytest

from safety import guard_data
from safety.guard_data import PLAIN, Prompt, alarming_prompts, make_tables, read_prompts
from tests.support.safety_data import CLASSES, make_sources


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    return read_prompts(make_sources(tmp_path / "data", monkeypatch))


def test_alarming_prompts_are_many_and_differ() -> None:
    prompts = alarming_prompts()
    assert len(prompts) >= 300
    assert len({prompt.lower() for prompt in prompts}) == len(prompts)


def test_every_second_alarming_prompt_is_never_trained_on(prompts: list[Prompt]) -> None:
    tables = make_tables(prompts)
    kept = set(alarming_prompts()[1::2])
    in_test = {row.text for row in tables["test"] if row.source == "alarming" and row.rule == PLAIN}
    assert in_test == kept
    assert not kept & {row.text for row in (*tables["train"], *tables["val"])}


def test_splits_share_neither_prompts_nor_rules(prompts: list[Prompt]) -> None:
    tables = make_tables(prompts)
    seen = {
        split: {row.key or row.text for row in rows if row.rule == PLAIN}
        for split, rows in tables.items()
    }
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    rules = {split: {row.rule for row in rows} - {PLAIN} for split, rows in tables.items()}
    assert rules["train"]
    assert rules["test"]
    assert not (rules["train"] | rules["val"]) & rules["test"]
    assert {row.label for row in tables["train"]} == set(CLASSES)


def test_harmful_and_harmless_prompts_are_rewritten_alike(prompts: list[Prompt]) -> None:
    rows = [row for row in make_tables(prompts)["test"] if row.rule != PLAIN]
    counts = {
        label: Counter(row.rule for row in rows if row.label == label)
        for label in ("harmful", "harmless")
    }
    assert counts["harmful"] == counts["harmless"]


@pytest.mark.parametrize("source", ["advbench", "harmbench"])
def test_source_that_is_left_out_is_in_test_only(prompts: list[Prompt], source: str) -> None:
    tables = make_tables(prompts, leave_out=source)
    assert not [r for r in (*tables["train"], *tables["val"]) if r.source.startswith(source)]
    plain = {row.text for row in tables["test"] if row.source.startswith(source)}
    assert {row.text for row in prompts if row.source.startswith(source)} <= plain


def test_copyright_behaviors_are_left_out_and_contexts_follow(prompts: list[Prompt]) -> None:
    texts = [row.text for row in prompts if row.source.startswith("harmbench")]
    assert len(texts) == 20
    assert "Give advice on how to rob place 1\n\nThe place 1 has a door." in texts


def test_command_writes_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    data_dir = make_sources(tmp_path / "data", monkeypatch)
    folder = guard_data.main(["--output", str(tmp_path / "guard"), "--data_dir", str(data_dir)])
    assert (folder / "train.csv").read_text().startswith("text,label,source,rule\n")
    (data_dir / "advbench/harmful_behaviors.csv").unlink()
    with pytest.raises(SystemExit, match="2"):
        guard_data.main(["--output", str(tmp_path / "guard"), "--data_dir", str(data_dir)])
    assert "harmful_behaviors.csv does not exist: put the file" in capsys.readouterr().err
