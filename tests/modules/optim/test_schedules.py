"""Learning-rate schedules follow the length of the run, its accumulation and its validation."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.optim import SGD

from engine.errors import UserError
from modules.optim.schedules import OneCycle, WarmupCosine, WarmupLinear
from tests.support.optimizers import fit


def test_one_cycle_peaks_at_the_learning_rate_of_the_optimizer() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    schedule, rates = OneCycle(optimizer, total_steps=50), []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.1 / 25, 0.1, 0.1 / 250_000))


def test_one_cycle_adds_no_momentum_to_an_optimizer_without_it() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    OneCycle(optimizer, total_steps=10)
    assert optimizer.param_groups[0]["momentum"] == 0
    with pytest.raises(ValueError, match="warmup_fraction must be in"):
        OneCycle(optimizer, warmup_fraction=1)


def test_one_cycle_lasts_as_long_as_the_run() -> None:
    watch = fit(partial(SGD, lr=0.5, momentum=0.9), OneCycle, limit_train_batches=5)
    assert watch.intervals == ["step"]
    assert len(watch.rates) == 10
    assert max(watch.rates) == watch.rates[2] == pytest.approx(0.5)  # at 0.3 · 10 - 1
    assert watch.rates[-1] == pytest.approx(0.5 / 250_000)


def test_warmup_linear_rises_to_the_learning_rate_and_falls_to_zero() -> None:
    watch = fit(partial(SGD, lr=0.5), partial(WarmupLinear, warmup_fraction=0.4))
    assert watch.intervals == ["step"]
    warmup = [0.5 * t / 5 for t in (1, 2, 3, 4)]
    assert watch.rates == pytest.approx([*warmup, *(0.5 * t / 6 for t in (6, 5, 4, 3, 2, 1))])
    assert watch.rate_after == 0


def test_warmup_linear_equals_transformers_after_warmup() -> None:
    from transformers import get_linear_schedule_with_warmup

    ours, theirs = (SGD([nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2))
    schedule = WarmupLinear(ours, warmup_fraction=0.2, total_steps=20)
    reference = get_linear_schedule_with_warmup(theirs, 4, 20)
    for step in range(20):
        if step >= 4:  # theirs starts at zero, which wastes a step
            assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        for one in (ours, schedule, theirs, reference):
            one.step()
    with pytest.raises(ValueError, match="warmup_fraction must be in"):
        WarmupLinear(ours, warmup_fraction=1)


def test_schedule_counts_steps_under_changing_accumulation() -> None:
    callback = GradientAccumulationScheduler({0: 1, 1: 2, 2: 4})
    schedule = partial(WarmupCosine, final_fraction=0.1)
    sgd, limits = partial(SGD, lr=0.5), {"limit_train_batches": 6, "max_epochs": 3}
    watch = fit(sgd, schedule, **limits, callbacks=[callback])
    steps = [6, 3, 2]  # the last batches of an epoch make a step, even if they are fewer
    assert watch.rate_after == pytest.approx(0.05)
    cosine = [0.05 + 0.45 * (1 + math.cos(math.pi * t / sum(steps))) / 2 for t in range(11)]
    assert sorted(set(watch.rates), reverse=True) == pytest.approx(cosine)


def test_schedule_refuses_a_run_of_unlimited_length() -> None:
    with pytest.raises(UserError, match="length of the run, which is unlimited"):
        fit(partial(SGD, lr=0.5), WarmupCosine, max_epochs=-1, max_steps=-1)


def test_plateau_is_stepped_after_each_validation(monkeypatch) -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    monitored = []
    step = ReduceLROnPlateau.step
    monkeypatch.setattr(
        ReduceLROnPlateau,
        "step",
        lambda self, metric: (monitored.append(metric), step(self, metric)),
    )
    plateau = partial(ReduceLROnPlateau, monitor="val/loss", patience=1, threshold=1e9)
    by_steps = {"check_val_every_n_epoch": None, "val_check_interval": 3, "max_steps": 9}
    watch = fit(partial(SGD, lr=0.5), plateau, limit_train_batches=9, **by_steps)
    assert len(monitored) == 3
    assert watch.rates == pytest.approx([0.5] * 6 + [0.05] * 3)  # two without a better one


def test_warmup_longer_than_the_run_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="warmup_steps is 50, but the run has only 10 steps"):
        fit(partial(SGD, lr=0.5), partial(WarmupCosine, warmup_steps=50))
