"""The code of docs/pretrained_weights.md runs."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from modules import Classifier
from tests.support import ROOT
from tests.support.huggingface import make_model, make_tokenizer, save_model


def test_command_fine_tunes_a_classifier(run: Callable[..., Path], tmp_path: Path) -> None:
    text = (ROOT / "docs/pretrained_weights.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^python train\.py (.*)$", text, re.MULTILINE)
    model = make_model("bert", "AutoModelForSequenceClassification", num_labels=2)
    folder = save_model(tmp_path / "tiny", model, make_tokenizer())
    words = [str(folder) if w.startswith("package:") else w for w in shlex.split(command)]
    rows = [f"a {'good' if number % 2 else 'bad'} film,{number % 2}" for number in range(40)]
    (tmp_path / "reviews.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    trained = run(*words, "--data.context", 32)
    assert (trained / "results.json").is_file()


def test_state_dict_becomes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/pretrained_weights.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    theirs = torchvision.models.resnet18().eval()
    monkeypatch.chdir(tmp_path)
    torch.save(theirs.state_dict(), "resnet18.pth")
    exec(compile(code, "pretrained_weights.md", "exec"), {})
    task = Classifier.load_from_checkpoint("resnet18.ckpt", weights_only=True).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(task.net(images), theirs(images), atol=1e-4, rtol=1e-4)
