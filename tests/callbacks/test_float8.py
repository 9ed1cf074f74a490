"""callbacks.Float8: refused where it cannot run; close to full precision where it is emulated."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from callbacks.training.float8 import CAPABILITY, check_float8, use_float8
from engine.errors import UserError
from modules.nets import GPT
from tests.support import ROOT


def test_overlay_on_a_cpu_is_refused(refused: Callable[..., str]) -> None:
    overlays = ("--config", ROOT / "configs/trainer/fp8.yaml", "--trainer.accelerator", "cpu")
    message = refused("fit", "--config", ROOT / "configs/source/gpt.yaml", *overlays)
    assert "Float8 needs an NVIDIA GPU" in message
    assert "device cpu" in message
    assert "bf16.yaml" in message


def test_older_gpu_and_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    capability = [(8, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability[0])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    with pytest.raises(UserError, match="this run uses A100"):
        check_float8(gpu)
    capability[0] = CAPABILITY
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"stepladder\[fp8\]"):
        check_float8(gpu)


def test_blocks_compute_in_float8_with_the_same_weights() -> None:
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    net = GPT(50, 16, num_layers=2, num_heads=2, dim=32)
    tokens = torch.randint(50, (2, 16))
    exact = deepcopy(net)
    assert len(use_float8(net, emulate=True)) == 8  # four layers in each of two blocks
    assert net.state_dict().keys() == exact.state_dict().keys()
    losses = [n(tokens, targets=tokens, loss_chunk_size=32)[0] for n in (net, exact)]
    for loss in losses:
        loss.backward()
    assert losses[0] != losses[1]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.01)
    ours, theirs = (n.blocks[0].mlp.up.weight.grad for n in (net, exact))
    assert 0 < (ours - theirs).norm() / theirs.norm() < 0.2  # a product of two numbers of 3 bits
