"""Prompts are compared on labeled texts; answers are kept, and regressions found."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import evaluate_prompts
from scripts.evaluate_prompts import find_regressions, main
from tests.support.configs import PROMPTS
from tests.support.huggingface import make_chat_folder

WORDS = {"bad": "terrible", "good": "great"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An evaluation of three variants of a tiny model on a table of its own."""
    rows = [
        (f"a {w} film {n}", k) for n in range(100) for k, w in (("bad", "dull"), ("good", "fine"))
    ]
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (tmp_path / "model").mkdir()
    content = {
        "data": {
            "class_path": "datamodules.TextTable",
            "init_args": {"train": str(tmp_path / "reviews.csv")},
        },
        "words": WORDS,
        "models": [str(make_chat_folder(tmp_path / "model"))],
        "prompts": [
            {"template": "sentiment"},
            {"template": "sentiment", "calibration": "contextual"},
            {"template": "sentiment", "examples": 2, "calibration": "batch"},
            {"template": "sentiment", "chat": True},
        ],
        "limit": 6,
        "expect": {"sentiment examples=0/accuracy": ">= 2"},
    }
    path = tmp_path / "films.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(config: Path, *flags: str) -> dict[str, Any]:
    return main(["--config", str(config), *flags])


@pytest.mark.slow
def test_variants_are_measured_once_and_compared(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[int] = []
    true_scores = evaluate_prompts.LocalScores.__call__

    def count(self: Any, conversations: Sequence, *others: Any) -> Any:
        asked.append(len(conversations))
        return true_scores(self, conversations, *others)

    monkeypatch.setattr(evaluate_prompts.LocalScores, "__call__", count)
    results = run(config)
    assert asked == [6, 3, 6, 6]  # the second variant only asks for the texts without content
    assert len(results["labels"]) == 6
    assert len(results["predictions"]) == 4
    names = list(results["predictions"])
    for name, predictions in results["predictions"].items():
        right = sum(p == y for p, y in zip(predictions, results["labels"], strict=True)) / 6
        assert results["metrics"][f"{name}/accuracy"] == pytest.approx(right)
        low, high = results["intervals"][f"{name}/accuracy"]
        assert low <= right <= high
    assert [*results["compared with the first"]] == names[1:]
    output = capsys.readouterr().out
    assert "sentiment examples=0/accuracy expected >= 2: not met" in output
    saved = json.loads((Path(output.split("run folder: ")[1].strip()) / "results.json").read_text())
    assert saved == json.loads(json.dumps(results))

    again = run(config)
    assert asked == [6, 3, 6, 6]
    assert again == results


@pytest.mark.slow
def test_a_significantly_worse_variant_is_a_regression(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    results = run(config, "--limit", "null", "--prompts", '[{"template": "sentiment"}]')
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(results))
    flags = ("--limit", "null", "--prompts", '[{"template": "sentiment"}]')
    assert run(config, *flags, "--baseline", str(path))["regressions"] == []
    better = results | {"predictions": {"sentiment examples=0": results["labels"]}}
    path.write_text(json.dumps(better))
    if results["predictions"]["sentiment examples=0"] == results["labels"]:
        pytest.fail("the tiny model should not be right about everything")
    with pytest.raises(SystemExit) as exit:
        run(config, *flags, "--baseline", str(path))
    assert exit.value.code == 1
    assert "regression: sentiment examples=0: accuracy 0." in capsys.readouterr().out


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: path.stem)
def test_configs_are_valid(path: Path) -> None:
    evaluation = evaluate_prompts.read_evaluation(path, [])
    names = [str(variant) for variant in evaluation.prompts]
    assert len({*names}) == len(names)
    assert {metric.rpartition("/")[0] for metric in evaluation.expect} <= {*names}


def test_a_small_difference_is_no_regression() -> None:
    labels = [0, 1] * 20
    now = {"rows": "x", "labels": labels, "predictions": {"a": [1, *labels[1:]]}}
    assert find_regressions(now, now | {"predictions": {"a": labels}}) == []
    worse = now | {"predictions": {"a": [1] * 40}}
    assert len(find_regressions(worse, now | {"predictions": {"a": labels}})) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--prompts", "[{template: unknown}]"), "no template unknown"),
        (("--prompts", "[{template: sentiment, examples: -1}]"), "at least 0"),
        (("--words", "{bad: x}"), "one for each class: bad, good"),
        (("--baseline", "missing.json"), "is not a results.json of evaluate_prompts"),
        (("--models", "[]"), "at least one of `prompts`"),
        (("--color", "red"), "color"),
    ],
)
def test_bad_input_is_refused(
    config: Path, flags: tuple[str, str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as exit:
        run(config, *flags)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_answers_of_a_server_count_by_their_first_label(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["It is great, not terrible.", "Terrible!", "no idea"])
    scores = evaluate_prompts.EndpointScores("http://127.0.0.1:1/v1#model")
    monkeypatch.setattr(type(scores.chat), "complete", lambda *args, **options: next(answers))
    rows = scores([[{"role": "user", "content": "?"}]] * 3, list(WORDS.values()), True)
    assert rows == [[-10.0, 0.0], [0.0, -10.0], [-10.0, -10.0]]
