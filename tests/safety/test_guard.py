"""The guard as serve.py and rag.py use it: windows of long texts, and a calibrated threshold."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from safety import calibrate
from safety.calibrate import choose_threshold
from safety.guard import THRESHOLD, Guard, Refusal, calibration_file, harm_probabilities
from tests.support.safety_data import make_guard


def test_end_of_a_long_text_is_judged(tmp_path: Path) -> None:
    guard = Guard(make_guard(tmp_path / "guard.ckpt"))  # reads 32 tokens
    words = sorted(("good", "bad"), key=lambda word: guard.judge([word])[0])
    harmless, harmful = (" ".join([word] * 40) for word in words)
    long = f"{harmless} {harmful}"
    assert harm_probabilities(guard.model, [long]) == pytest.approx(guard.judge([harmless]))
    assert guard.judge([long]) == pytest.approx(guard.judge([harmful]))
    assert guard.judge(["", harmless])[1:] == pytest.approx(guard.judge([harmless]))


def test_long_encoded_text_is_decoded_before_it_is_cut(tmp_path: Path) -> None:
    guard = Guard(make_guard(tmp_path / "guard.ckpt"))  # reads 32 tokens
    words = sorted(("good", "bad"), key=lambda word: guard.judge([word])[0])
    harmless, harmful = (" ".join([word] * 40) for word in words)
    encoded = base64.b64encode(f"{harmless} {harmful}".encode()).decode()
    (harm,) = guard.judge([encoded])
    assert harm >= guard.judge([harmful])[0] - 1e-6


def test_check_raises_at_the_threshold(tmp_path: Path) -> None:
    path = make_guard(tmp_path / "guard.ckpt")
    (harm,) = Guard(path).judge(["good"])
    with pytest.raises(Refusal, match=f"refuses the question: .* {harm:.2f}"):
        Guard(path, harm).check("good", "question")
    Guard(path, np.nextafter(harm, 1)).check("good", "question")


@pytest.mark.parametrize("refused", [0.0, 0.1, 0.5])
def test_threshold_refuses_at_most_the_fraction(refused: float) -> None:
    scores = np.random.default_rng(0).random(50)
    threshold = choose_threshold(scores, refused)
    assert (scores >= threshold).mean() == refused
    assert (np.array([0.2, 0.2, 0.1]) >= choose_threshold([0.2, 0.2, 0.1], 0.4)).sum() == 0


def test_calibration_is_written_and_used(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = make_guard(tmp_path / "best.ckpt")
    assert Guard(path).threshold == THRESHOLD
    rows = [("harmless", text) for text in ("a film", "good", "bad")] + [("harmful", "the film")]
    table = "text,label,source,rule\n" + "".join(
        f"{t},{label},alarming,none\n" for label, t in rows
    )
    (tmp_path / "val.csv").write_text(table)
    found = calibrate.main(["--guard", str(path), "--data", str(tmp_path), "--refused", "0.34"])
    assert found["refused_harmless"] == pytest.approx(1 / 3)
    assert Guard(path).threshold == found["threshold"]
    assert Guard(path, 0.9).threshold == 0.9
    assert "1 harmful prompts" in capsys.readouterr().out
    calibration_file(path).write_text(json.dumps({}))
    with pytest.raises(Exception, match="cannot read the calibration"):
        Guard(path)
