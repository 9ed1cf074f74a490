"""`train.py fit` computes what a bare PyTorch loop computes: the same losses to 2e-5 nats."""

import csv
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import ClassVar

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules import PythonSource, Shakespeare
from modules.optim.schedules import WarmupCosine
from tests.support import REAL_DIR, ROOT

STEPS = 8


class FirstWeights(L.Callback):
    """Keeps the net as it was before the first step."""

    net: ClassVar[nn.Module]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        FirstWeights.net = deepcopy(pl_module.net)


@pytest.mark.parametrize(
    ("accumulate", "compiled"), [(1, False), pytest.param(2, True, marks=pytest.mark.slow)]
)
def test_fit_of_min_gpt_is_on_the_curve_of_a_bare_loop(
    run: Callable[..., Path], accumulate: int, compiled: bool
) -> None:
    real = (REAL_DIR / "tinyshakespeare").is_dir()
    data = {"context": 256, "batch_size": 4}
    folder = run(
        *("fit", "--config", ROOT / "configs/shakespeare/gpt.yaml", "--trainer.accelerator", "cpu"),
        *("--data", "datamodules.Shakespeare" if real else "datamodules.PythonSource"),
        *(f"--data.{name}={value}" for name, value in data.items()),
        *(("--data.data_dir", REAL_DIR) if real else ()),
        *("--trainer.precision", "32-true", "--trainer.max_steps", STEPS),
        *("--model.lr_scheduler.warmup_steps", 3, "--trainer.log_every_n_steps", 1),
        *("--trainer.limit_val_batches", 0, "--checkpoint.monitor", "null"),
        *("--trainer.callbacks", "null", f"--trainer.callbacks+={__name__}.FirstWeights"),
        *("--test_after_fit", "false", "--trainer.accumulate_grad_batches", accumulate),
        *(() if compiled else ("--model.compile", "false")),
    )
    with (folder / "metrics.csv").open() as file:
        seen = [float(row["train/loss"]) for row in csv.DictReader(file)]

    source = Shakespeare(**data, data_dir=str(REAL_DIR)) if real else PythonSource(**data)
    source.prepare_data()
    source.setup("fit")
    net = FirstWeights.net.train()
    groups = [
        {"params": [p for p in net.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.001, betas=(0.9, 0.99), fused=True)
    schedule = WarmupCosine(optimizer, warmup_steps=3, total_steps=STEPS)
    losses: list[float] = []
    for number, (tokens, targets) in enumerate(source.train_dataloader(), start=1):
        logits, _ = net(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        (loss / accumulate).backward()
        if number % accumulate:
            continue
        losses.append(loss.item())  # of the last batch of a step, as logged
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if number == STEPS * accumulate:
            break
    assert len(seen) == STEPS
    # fp32: the trainer divides the sum of the nats, the loop takes their mean.
    assert losses == pytest.approx(seen, abs=2e-5)
    assert max(losses) - min(losses) > 0.1  # it learns: the curve is no line
