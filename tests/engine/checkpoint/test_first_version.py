"""Checkpoints and run folders written by the first version load, answer and resume as they did.

tests/fixtures/first_version holds them: answers.json has what each checkpoint answered, and
runs/losses.json the losses of each run when it was not interrupted.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image

import modules
from engine.checkpoint.reading import read_checkpoint
from tests.support import ROOT
from tests.support.metrics import metrics

FOLDER = ROOT / "tests/fixtures/first_version"
ANSWERS = json.loads((FOLDER / "answers.json").read_text())
LOSSES = json.loads((FOLDER / "runs/losses.json").read_text())
ASK: dict[str, tuple[str, Callable[[Any], Any]]] = {  # checkpoint → task, question
    "classifier_image": ("Classifier", lambda task: task.classify([_image()])),
    "classifier_text": (
        "Classifier",
        lambda task: task.classify(["a good and fine film", "dull and bad"]),
    ),
    "language_model": (
        "LanguageModel",
        lambda task: [task.generate(["def "], max_new_tokens=12, top_k=1, seed=1)],
    ),
    "translator": ("Translator", lambda task: task.translate(["one two three"], beam_size=2)),
    "word_vectors": ("WordVectors", lambda task: task.nearest(["the"], number=3)),
    "masked_language_model": (
        "MaskedLanguageModel",
        lambda task: task.fill_mask("import [MASK]", top_k=3),
    ),
}


def _image() -> Image.Image:
    return Image.open(FOLDER / "image.png")


def flatten(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flatten(item)]
    return [value]


@pytest.mark.parametrize("name", ASK)
def test_old_checkpoint_gives_the_same_answers(name: str) -> None:
    task_name, ask = ASK[name]
    path = FOLDER / f"{name}.ckpt"
    task = getattr(modules, task_name).load_from_checkpoint(path, weights_only=True).eval()
    answers, expected = flatten(ask(task)), flatten(ANSWERS[name])
    assert len(answers) == len(expected)
    for answer, old in zip(answers, expected, strict=True):
        # 1e-4: sums are added in another order on other CPUs
        assert answer == (pytest.approx(old, abs=1e-4) if isinstance(old, float) else old)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.ckpt")), ids=lambda path: path.stem)
def test_old_checkpoint_is_read_with_current_names(path: Path) -> None:
    saved = read_checkpoint(path)["hyper_parameters"]
    task = L.LightningModule.load_from_checkpoint(path, weights_only=True)
    assert type(task).__name__ == saved["_class_path"].rpartition(".")[2]
    assert "written_out" not in json.dumps(saved)


@pytest.mark.parametrize("name", LOSSES)
def test_old_run_resumes_with_the_same_losses(run, runs: Path, name: str, capsys) -> None:
    folder = runs / name / "001"
    shutil.copytree(FOLDER / "runs" / name / "001", folder)
    before = (folder / "config.yaml").read_text()
    expected = LOSSES[name]["train/loss"]
    refused = False
    try:
        run("fit", "--resume", folder)
    except SystemExit:  # the state of a replaced optimizer or schedule may be refused
        refused = True
    if refused:
        error = capsys.readouterr().err
        assert name != "digits-mlp", error
        assert error.count("train.py: error: ") == 1
        assert "--init_from" in error
        assert (folder / "config.yaml").read_text() == before
        return
    losses = [loss for (key, _), loss in metrics(folder).items() if key == "train/loss"]
    assert len(losses) == len(expected)
    assert losses == pytest.approx(expected, rel=1e-4)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == len(expected)
