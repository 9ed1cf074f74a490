"""True precisions and overfit_batches work for all tasks."""

import json
from pathlib import Path
from typing import ClassVar

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils._pytree import tree_leaves

import train
from benchmarks.table import Page
from datamodules.language_modeling import source
from engine.precision import has_native_bfloat16, recommended_precision
from modules.training.metrics import MeanLoss
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MODULES", "argparse ast base64 bdb")


class RecordBatches(Callback):
    """Record each training batch and a random number drawn at its start."""

    batches: ClassVar[list[tuple[torch.Tensor, float]]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        first = next(leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
        state = torch.get_rng_state()
        RecordBatches.batches.append((first.clone(), torch.rand(()).item()))
        torch.set_rng_state(state)


def val_loss(config: str, folder: Path, precision: str) -> float:
    flags = ["--trainer.max_steps", "3", "--trainer.limit_train_batches", "3"]
    flags += ["--trainer.limit_val_batches", "3", "--test_after_fit", "false"]
    flags += ["--trainer.callbacks", "null"]
    flags += ["--trainer.precision", precision, "--auto_precision", "false"]
    flags += ["--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "1.0"]
    flags += ["--runs_dir", str(folder), "--experiment", precision]
    train.main(["fit", "--config", str(ROOT / f"configs/{config}.yaml"), *flags])
    results = json.loads((folder / precision / "001/results.json").read_text())
    loss: float = results["metrics"]["val/loss"]
    return loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["digits/cnn", "source/gpt", "source/bert", "toy/reversed_words"]
)
def test_validation_loss_in_bfloat16_and_float64_is_close_to_float32(config, tmp_path):
    single, half, double = (
        val_loss(config, tmp_path, precision) for precision in ("32-true", "bf16-true", "64-true")
    )
    assert double == pytest.approx(single, rel=1e-4)
    assert half == pytest.approx(single, rel=0.1)
    assert half != single


def test_mean_loss_stays_exact_in_a_bfloat16_network() -> None:
    class Task(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weights, self.mean_loss = nn.Linear(2, 2), MeanLoss()

    task = Task().to(torch.bfloat16)
    assert task.weights.weight.dtype == torch.bfloat16
    for _ in range(1000):
        task.mean_loss.update(torch.tensor(1.0), 2)
    assert task.mean_loss.loss == 1000  # in bfloat16 256 + 1 is 256
    assert task.mean_loss.compute() == 0.5
    task.mean_loss.update(torch.tensor(torch.nan), 1)
    assert task.mean_loss.compute().isnan()


@pytest.mark.parametrize("config", ["digits/mlp", "source/gpt", "toy/reversed_words"])
def test_overfit_batches_are_the_same_in_every_epoch(config, tmp_path):
    RecordBatches.batches = []
    flags = ["--trainer.overfit_batches", "2", "--trainer.max_steps", "6", "--auto_precision"]
    flags += ["false", "--trainer.limit_val_batches", "1", "--test_after_fit", "false"]
    flags += ["--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", "1.0"]
    flags += ["--runs_dir", str(tmp_path), "--trainer.callbacks", "null"]
    flags += [f"--trainer.callbacks+={__name__}.RecordBatches"]
    train.main(["fit", "--config", str(ROOT / f"configs/{config}.yaml"), *flags])
    batches, draws = zip(*RecordBatches.batches, strict=True)
    assert len(batches) == 6
    assert not torch.equal(batches[0], batches[1])
    for number in range(2, 6):
        assert torch.equal(batches[number], batches[number - 2])
    assert len(set(draws)) == 6  # dropout and augmentation still differ


@pytest.mark.parametrize(
    ("amx", "avx512", "precision", "named"),
    [
        (True, True, "bf16-mixed", "AMX"),
        (False, True, "bf16-mixed", "AVX512_BF16"),
        (False, False, "32-true", "no native bfloat16"),
    ],
)
def test_recommended_precision_follows_the_instruction_set(
    amx: bool, avx512: bool, precision: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    recommended, reason = recommended_precision("cpu")
    assert recommended == precision
    assert named in reason
    assert has_native_bfloat16(torch.device("cpu")) == (precision == "bf16-mixed")
    assert f", {named}), " in Page("any", "A title", "text").lines[2]
