"""The README's commands for users' own data work as printed, with shorter runs."""

import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = {
    "photos": ("--trainer.max_epochs", 1),
    "reviews": ("--trainer.max_epochs", 1),
    "my-text": ("--trainer.max_steps", 2, "--trainer.val_check_interval", 2),
}
QUICK = ("--trainer.callbacks", "null", "--trainer.limit_val_batches", 1)


def commands(containing: str) -> list[list[str]]:
    """Return the arguments of the README's train.py commands that contain a text."""
    text = README.replace("\\\n", " ")
    found = re.findall(r"^python train\.py (.*)$", text, re.MULTILINE)
    return [shlex.split(command) for command in found if containing in command]


@pytest.fixture
def own_files(tmp_path: Path) -> None:
    """Write photos/, new-photos/, reviews.csv, new.txt and my.txt into the working directory."""
    draw = random.Random(0)
    for label, brightness in (("cats", 60), ("dogs", 180)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            color = (brightness + draw.randint(-20, 20), brightness, 100)
            Image.new("RGB", (40, 30), color).save(tmp_path / "photos" / label / f"{number}.jpg")
    (tmp_path / "new-photos").mkdir()
    Image.new("RGB", (40, 30), (60, 60, 100)).save(tmp_path / "new-photos/new.jpg")
    rows = [f"a {'good' if number % 2 else 'bad'} film,{number % 2}" for number in range(40)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "new.txt").write_text("a good film\nan awful one\n")
    (tmp_path / "my.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)


@pytest.mark.slow
@pytest.mark.usefixtures("own_files")
@pytest.mark.parametrize("experiment", SHORT)
def test_own_data_commands_train_and_predict(
    experiment: str,
    tmp_path: Path,
    run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (fit,) = commands(f"--experiment {experiment} ")
    fit = [str(ROOT / word) if word.startswith("configs/") else word for word in fit]
    folder = run(*fit, *SHORT[experiment], *QUICK)
    assert (folder / "results.json").is_file()
    assert "not judged" not in capsys.readouterr().out
    if experiment != "my-text":  # whose run is cut to fewer steps than its warm-up
        assert not [one for one in recwarn if "warmup_steps" in str(one.message)]
    for predict in commands(f"--ckpt_path runs/{experiment}/"):
        monkeypatch.chdir(tmp_path)
        predicted = run(*predict)
        table = (predicted / "predictions.csv").read_text().splitlines()
        assert "prediction" in table[0]
        assert len(table) == 1 + (1 if experiment == "photos" else 2)
