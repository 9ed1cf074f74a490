"""On a GPU every strategy trains a GPT, resumes bit for bit, and exports safetensors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import export
from engine.precision import recommended_precision
from tests.support import ROOT
from tests.support.metrics import metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here"),
]
STEPS = 12
GPT = (
    *("--config", ROOT / "configs/source/gpt.yaml"),
    *("--config", ROOT / "configs/size/gpt-nano.yaml", "--model.lr_scheduler", "null"),
    *("--model.net.dropout", 0.1, "--data.batch_size", 16, "--trainer.log_every_n_steps", 1),
    *("--trainer.limit_val_batches", 0, "--checkpoint.monitor", "null"),
    *("--trainer.val_check_interval", 1.0, "--trainer.check_val_every_n_epoch", 1),
    *("--trainer.callbacks", "null", "--test_after_fit", "false"),
)


def overlay(name: str) -> tuple:
    return (
        *("--config", ROOT / f"configs/trainer/{name}.yaml", "--trainer.devices", 1),
        *("--trainer.deterministic", "true", "--trainer.precision", "bf16-mixed"),
    )


TWICE = ("--trainer.accumulate_grad_batches", 2)
STRATEGIES = {
    "alone": overlay("gpu"),
    "compiled": (*overlay("gpu"), "--model.compile", "true"),
    "accumulated": (*overlay("gpu"), *TWICE),
    "ddp": overlay("ddp"),
    "fsdp": overlay("fsdp"),
    "offload": overlay("fsdp_offload"),
    "zero-offload": overlay("deepspeed_offload"),
    "zero2": overlay("deepspeed_zero2"),
    "accumulated-zero2": (*overlay("deepspeed_zero2"), *TWICE),
    "zero3": overlay("deepspeed_zero3"),
}


@pytest.fixture(autouse=True)
def _restore_determinism() -> Iterator[None]:
    """`trainer.deterministic` is a setting of the whole process."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def losses(run: Path) -> dict[str, float]:
    return {step: v for (name, step), v in metrics(run).items() if name == "train/loss"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_trains_resumes_and_exports(
    run: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    if "zero" in name:
        pytest.importorskip("deepspeed")

    def fit(strategy: str, steps: int, experiment: str) -> Path:
        arguments = (*GPT, *STRATEGIES[strategy], "--trainer.max_steps", steps)
        return run("fit", *arguments, "--experiment", experiment)

    plain = fit("accumulated" if name.startswith("accumulated") else "alone", STEPS, "plain")
    uninterrupted = fit(name, STEPS, "uninterrupted")
    stopped = fit(name, STEPS // 2, "stopped")
    resumed = run("fit", "--resume", stopped, "--trainer.max_steps", STEPS)

    expected, seen = losses(plain), losses(uninterrupted)
    assert len(seen) == STEPS
    assert seen[str(STEPS - 1)] < seen["0"] - 0.2
    # All compute in bfloat16, in different orders; DeepSpeed also stores weights in it.
    close = 2e-2 if "zero" in name else 5e-3
    assert seen == pytest.approx({step: expected[step] for step in seen}, rel=close)
    assert losses(resumed) == seen
    weights = []
    for folder in (uninterrupted, resumed):
        options = {"checkpoint": folder / "checkpoints/last.ckpt", "format": "safetensors"}
        options["output"] = tmp_path / f"{folder.parent.name}-weights"
        written = export.main([f"--{key}={value}" for key, value in options.items()])
        weights.append(load_file(written / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    results = json.loads((resumed / "results.json").read_text())
    assert torch.cuda.get_device_name(0) in results["machine"]


def test_recommended_precision_is_native_to_the_gpu() -> None:
    has_bf16 = torch.cuda.get_device_capability(0) >= (8, 0)
    assert recommended_precision("auto")[0] == ("bf16-mixed" if has_bf16 else "32-true")


def test_checkpoint_of_a_gpu_loads_without_one(run: Callable[..., Path]) -> None:
    folder = run("fit", *GPT, *STRATEGIES["alone"], "--trainer.max_steps", 2)
    command = [sys.executable, ROOT / "generate.py", "--prompt", "def ", "--max_new_tokens", 8]
    command += ["--checkpoint", folder / "checkpoints/last.ckpt"]
    no_gpu = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*map(str, command)], env=no_gpu, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("def ")
