"""DeepSpeed: two processes equal one, resume bit for bit, and export their checkpoints."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import export
import train
from modules.inference.pretrained import open_language_model
from tests.support import ROOT, many_devices
from tests.support.many_devices import EXPERIMENTS, GPT
from tests.support.metrics import metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiments run by one process, and by two with DeepSpeed."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("deepspeed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, arguments in {"gpt": GPT, "accumulated": EXPERIMENTS["accumulated"]}.items():
            train.main(["fit", *map(str, arguments), "--experiment", name])
        many_devices.start(2, folder, str(ROOT / "tests/support/deepspeed_on_cpu.py"))
    return folder / "runs"


def weights(run: Path, folder: Path) -> dict[str, torch.Tensor]:
    options = {"checkpoint": run / "checkpoints/last.ckpt", "format": "safetensors"}
    options["output"] = folder / run.parent.name
    written = export.main([f"--{name}={value}" for name, value in options.items()])
    return load_file(written / "model.safetensors")


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("name", ["gpt", "accumulated"])
def test_two_processes_equal_one(
    results_folder: Path, tmp_path: Path, name: str, stage: int
) -> None:
    one, two = results_folder / name / "001", results_folder / f"{name}-zero{stage}" / "001"
    expected, seen = metrics(one), metrics(two)
    assert expected.keys() == seen.keys()
    assert len(expected) > 10
    for key, value in expected.items():
        assert seen[key] == pytest.approx(value, rel=1e-5), key
    a, b = weights(one, tmp_path), weights(two, tmp_path)
    assert a.keys() == b.keys()
    # Adam divides by the gradient's size, so rounding moves weights with tiny gradients.
    assert max((a[key] - b[key]).abs().max() for key in a) < 1e-4


@pytest.mark.parametrize("stage", [2, 3])
def test_resume_is_bit_exact(results_folder: Path, tmp_path: Path, stage: int) -> None:
    uninterrupted, resumed = (
        results_folder / f"gpt-zero{stage}/001",
        results_folder / f"stopped-zero{stage}/001",
    )
    assert metrics(resumed) == metrics(uninterrupted)
    a, b = weights(uninterrupted, tmp_path), weights(resumed, tmp_path)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def zero_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints that DeepSpeed wrote in one process."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("zero")
    command = [sys.executable, ROOT / "tests/support/write_zero.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("stage", [2, 3])
def test_checkpoint_is_exported_as_safetensors_and_as_a_single_file(
    zero_checkpoints: Path, tmp_path: Path, stage: int
) -> None:
    written = zero_checkpoints / f"zero{stage}"
    for kind in ("safetensors", "checkpoint"):
        options = ("--checkpoint", written, "--format", kind, "--output", tmp_path / kind)
        export.main([str(option) for option in options])
    task = open_language_model(tmp_path / "checkpoint/model.ckpt")
    expected = torch.load(zero_checkpoints / "logits.pt", weights_only=True)[f"zero{stage}"]
    with torch.no_grad():
        assert torch.allclose(task(torch.arange(8)[None])[0], expected, atol=1e-5)
    stored = load_file(tmp_path / "safetensors/model.safetensors")
    assert torch.equal(stored["last_norm.weight"], task.net.last_norm.weight)
    assert stored.keys() == dict(task.net.named_parameters()).keys()


def test_checkpoint_is_refused_by_other_strategies(zero_checkpoints: Path, refused) -> None:
    message = refused("validate", *GPT, "--ckpt_path", zero_checkpoints / "zero2")
    assert "deepspeed_zero2.yaml" in message
    assert "--format checkpoint" in message
