"""Optimizer and schedule are those of the config, without arguments of a default class."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, StepLR

import train
from modules import Classifier
from modules.nets import MLP
from modules.optim.schedules import WarmupCosine
from tests.support import TINY
from tests.support.optimizers import fit


def optimizer_of(*flags: str) -> torch.optim.Optimizer:
    """Return the optimizer of a run of train.py."""
    configured = []
    monkey = pytest.MonkeyPatch()
    configure_optimizers = Classifier.configure_optimizers

    def recorded(self: Classifier) -> dict:
        configured.append(configure_optimizers(self))
        return configured[-1]

    with monkey.context() as patch:
        patch.setattr(Classifier, "configure_optimizers", recorded)
        net = ["--model.net", "modules.nets.MLP", "--trainer.fast_dev_run", "true"]
        train.main(["fit", "--config", str(TINY), *net, *flags])
    return configured[0]["optimizer"]


def test_sgd_does_not_inherit_weight_decay() -> None:
    optimizer = optimizer_of("--model.optimizer", "SGD", "--model.optimizer.lr", "0.2")
    assert type(optimizer) is SGD
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0]
    assert optimizer.defaults["lr"] == 0.2


def test_flags_set_class_and_learning_rate() -> None:
    flags = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1")
    optimizer = optimizer_of(*flags)
    assert type(optimizer) is SGD
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    assert optimizer.defaults["momentum"] == 0


def test_default_is_adamw_with_lr_0_001() -> None:
    optimizer = optimizer_of()
    assert type(optimizer) is AdamW
    assert optimizer.defaults["lr"] == 0.001


def test_weight_decay_applies_to_matrices_only() -> None:
    groups = fit(partial(AdamW, lr=0.01, weight_decay=0.3)).optimizer.param_groups
    decay = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {2: 0.3, 1: 0.0}
    assert sum(len(group["params"]) for group in groups) == 4  # two layers, none lost or doubled


def test_frozen_parameters_are_not_optimized() -> None:
    task = Classifier(MLP(image_size=8, hidden_sizes=[4]))
    task.net.layers[1].requires_grad_(False)
    given = task.configure_optimizers()["optimizer"].param_groups
    assert sum(len(group["params"]) for group in given) == 2


def formula(t: int, lr: float, w: int, n: int, f: float) -> float:
    if t < w:
        return lr * (t + 1) / (w + 1)
    return lr * (f + (1 - f) * (1 + math.cos(math.pi * min(1, (t - w) / (n - w)))) / 2)


@pytest.mark.parametrize(("w", "n", "f"), [(0, 10, 0.0), (3, 10, 0.0), (3, 8, 0.1)])
def test_warmup_cosine_follows_its_formula(w: int, n: int, f: float) -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = WarmupCosine(optimizer, warmup_steps=w, total_steps=n, final_fraction=f)
    for t in range(n + 4):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(formula(t, 0.5, w, n, f))
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_warmup_cosine_reaches_its_minimum_at_the_end_of_the_run(accumulate: int) -> None:
    schedule = partial(WarmupCosine, warmup_steps=2, final_fraction=0.1)
    watch = fit(
        partial(SGD, lr=0.5), schedule, limit_train_batches=6, accumulate_grad_batches=accumulate
    )
    steps = 12 // accumulate
    expected = [formula(t, 0.5, 2, steps, 0.1) for t in range(steps)]
    taken = watch.rates if accumulate == 1 else watch.rates[-steps:]
    assert taken == pytest.approx(expected)
    assert watch.rate_after == pytest.approx(0.05)


def test_schedules_with_total_steps_are_stepped_per_optimizer_step() -> None:
    sgd = partial(SGD, lr=0.5)
    by_step = fit(sgd, partial(OneCycleLR, max_lr=0.5, total_steps=10))
    by_epoch = fit(sgd, partial(StepLR, step_size=1, gamma=0.1))
    assert (by_step.intervals, by_epoch.intervals) == (["step"], ["epoch"])
    assert len(set(by_step.rates)) == 10
    assert by_epoch.rates == pytest.approx([0.5] * 5 + [0.05] * 5)


def test_reduce_lr_on_plateau_monitors_its_metric(run: Callable[..., Path]) -> None:
    name = "lightning.pytorch.cli.ReduceLROnPlateau"
    flags = ("--model.lr_scheduler", name, "--model.lr_scheduler.monitor", "val/loss")
    small = ("--trainer.max_epochs", "2", "--model.net.channels", "[4]")
    folder = run("fit", "--config", TINY, *flags, *small)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    scheduler = config["model"]["init_args"]["lr_scheduler"]
    assert scheduler["init_args"]["monitor"] == "val/loss"
