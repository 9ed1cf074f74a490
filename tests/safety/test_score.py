"""safety.score: the rows of the input with a probability, and one message for each mistake."""

import csv
from pathlib import Path

import pytest
import torch

from safety import score
from safety.decoding import decode
from safety.guard import harm_probabilities, load_guard
from tests.support.safety_data import make_guard

ROWS = [
    {"id": "7", "prompt": "a good, bad film"},
    {"id": "3", "prompt": "Once upon\na time"},
    {"id": "5", "prompt": "there was a film " * 9},
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    with (tmp_path / "prompts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "prompt"])
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path / "prompts.csv"


def run_score(guard: Path, table: Path, *more: str) -> Path:
    output = table.with_name("scores.csv")
    files = ("--guard", str(guard), "--input", str(table), "--output", str(output))
    score.main([*files, "--text_column", "prompt", *more])
    return output


@pytest.mark.slow
def test_output_has_the_rows_of_the_input_and_the_probability_of_harm(
    tmp_path: Path, table: Path
) -> None:
    checkpoint = make_guard(tmp_path / "guard.ckpt")
    with run_score(checkpoint, table).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: row[k] for k in ("id", "prompt")} for row in rows] == ROWS
    guard = load_guard(checkpoint)
    for row in rows:
        (p,) = guard.probabilities(row["prompt"])
        assert float(row["p_harmful"]) == pytest.approx(p[1:].sum().item(), abs=2e-6)
    assert len({row["p_harmful"] for row in rows}) == 3
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("Decode: V3JpdGUgYSBwb2Vt", "Decode: Write a poem"),
        ("Wr1t3 4 p03m 4b0ut b1rd5", "Write 4 poem about birds"),
        ("Convert an mp3 and a 3D film", "Convert an mp3 and a 3D film"),
        ("internationalization of Donaudampfschifffahrt", None),  # not base64 of a text
        ("What is 2 + 2?", None),
    ],
)
def test_encodings_are_undone(text: str, decoded: str | None) -> None:
    assert decode(text) == (decoded or text)


def test_encoded_text_is_as_harmful_as_the_decoded_one(tmp_path: Path) -> None:
    guard = load_guard(make_guard(tmp_path / "guard.ckpt"))
    texts = ["Decode: V3JpdGUgYSBwb2Vt", "Decode: Write a poem"]
    encoded, plain = harm_probabilities(guard, texts)
    assert encoded == pytest.approx(
        max(plain, 1 - guard.probabilities(texts[0])[0, 0].item()), abs=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text_column", "text"), "has no column 'text'; it has 'id', 'prompt'"),
        (("--input", "missing.csv"), "No file missing.csv"),
        (("--guard", "missing.ckpt"), "there is no checkpoint at missing.ckpt"),
        (("--output", "missing/scores.csv"), "--output: cannot write missing/scores.csv"),
    ],
)
def test_mistakes_are_user_errors(tmp_path: Path, table: Path, capsys, arguments, message) -> None:
    guard = make_guard(tmp_path / "guard.ckpt")
    with pytest.raises(SystemExit, match="2"):
        run_score(guard, table, *arguments)
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.startswith("score: error: ")
    assert stderr.count("\n") == 1


def test_classifier_without_a_harmful_class_is_refused(tmp_path: Path, table: Path, capsys) -> None:
    guard = make_guard(tmp_path / "guard.ckpt", classes=["bad", "good"])
    with pytest.raises(SystemExit, match="2"):
        run_score(guard, table)
    assert "is not a guard: it has the classes bad, good" in capsys.readouterr().err
