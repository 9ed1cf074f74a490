"""The code of docs/pretrained_weights.md runs."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from modules import Classifier
from tests.support import ROOT


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
