"""The commands of docs/finetuning.md work as printed, with a tiny network."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import export
from modules import Classifier
from scripts.evaluate import main as evaluate
from tests.support import ROOT
from tests.support.configs import TINY_BERT


@pytest.mark.slow
def test_commands_from_a_table_to_an_exported_model(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    text = (ROOT / "docs/finetuning.md").read_text(encoding="utf-8").replace("\\\n", " ")
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    fit, test, evaluated, predict, exported = (
        [str(ROOT / word) if word.startswith("configs/") else word for word in shlex.split(line)]
        for line in block.strip().splitlines()
    )
    rows = [f"a {'good' if number % 2 else 'bad'} film,{number % 2}" for number in range(40)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "new.txt").write_text("a good film\nan awful one\n")
    small = ("--data.batch_size", 8, "--trainer.max_epochs", 1, "--model.net", TINY_BERT)
    folder = run(*fit[2:], *small)
    assert run(*test[2:])
    evaluate(evaluated[3:])
    predicted = run(*predict[2:])
    assert len((predicted / "predictions.csv").read_text().splitlines()) == 3
    export.main(exported[2:])
    assert (tmp_path / "reviews-model/model.safetensors").is_file()
    best = folder / "checkpoints/best.ckpt"
    assert Classifier.load_from_checkpoint(best, weights_only=True).classify("a good film")
