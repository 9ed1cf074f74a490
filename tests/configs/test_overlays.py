"""Overlays of configs/optimizer and configs/schedule mean what they say, on every experiment."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import train
from cli.arguments import Arguments
from cli.command_line import CLI
from modules.optim.schedules import OneCycle, WarmupCosine
from tests.support import ROOT, TINY
from tests.support.configs import (
    EXPERIMENTS,
    ONE_STEP,
    SMALLER,
    data_for,
    name,
    run_before,
    skipped_without_data,
)
from tests.support.optimizers import fit

CONFIGS = ROOT / "configs"
OPTIMIZERS = sorted(CONFIGS.glob("optimizer/*.yaml"))
ONE_OF_EACH = {path.parent: path for path in EXPERIMENTS}.values()  # folder
SCHEDULES = sorted(CONFIGS.glob("schedule/*.yaml"))


def choice(overlay: Path) -> tuple[str, dict[str, Any]]:
    """The class that an overlay names and all that it says about it."""
    ((_, told),) = yaml.safe_load(overlay.read_text())["model"]["init_args"].items()
    if isinstance(told, str):
        return told, {}
    return told["class_path"], told.get("init_args", {})


def class_of(path: str) -> type:
    module, _, found = path.rpartition(".")
    return getattr(__import__(module, fromlist=[found]), found)


def built(*arguments: object) -> L.LightningModule:
    """The task that train.py builds of a command line, before it trains."""
    found: list[CLI] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLI, "_run_subcommand", lambda self, subcommand: found.append(self))
        train.main(["fit", *map(str, arguments), "--trainer.fast_dev_run", "true"])
    return found[0].model


def optimizer_of(task: L.LightningModule) -> Optimizer:
    return task.optimizer([nn.Parameter(torch.zeros(1))])


def scheduler_of(task: L.LightningModule) -> Any:
    return task.lr_scheduler and task.lr_scheduler(optimizer_of(task))


def told_state(scheduler: Any) -> dict[str, Any]:
    """What a schedule was told, read off its attributes."""
    if scheduler is None:
        return {}
    return {key: v for key, v in vars(scheduler).items() if isinstance(v, int | float | str)}


@pytest.fixture
def where(
    data_of: Callable, small_texts: Path, tmp_path: Path, run: Callable[..., Path]
) -> Callable[[Path], tuple]:
    def where(experiment: Path) -> tuple:
        data = ("--data.data_dir", data_for(experiment, data_of, small_texts, tmp_path))
        if not (tmp_path / "runs").exists():
            run_before(experiment, run, data)
        return (*data, *SMALLER.get(name(experiment), ()))

    return where


def build_on(experiment: Path, where: Callable, capsys, *stack: object) -> L.LightningModule:
    with skipped_without_data(capsys):
        return built("--config", experiment, *where(experiment), *stack)


def assert_optimizer_is(task: L.LightningModule, overlay: Path) -> None:
    path, arguments = choice(overlay)
    expected = class_of(path)([nn.Parameter(torch.zeros(1))], **arguments)
    found = optimizer_of(task)
    assert type(found) is type(expected)
    assert found.defaults == expected.defaults


def assert_schedule_is(task: L.LightningModule, overlay: Path) -> None:
    path, arguments = choice(overlay)
    expected = class_of(path)(optimizer_of(task), **arguments)
    found = scheduler_of(task)
    assert type(found) is type(expected)
    assert told_state(found) == told_state(expected)


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(path, marks=[] if path in ONE_OF_EACH else [pytest.mark.slow], id=name(path))
        for path in EXPERIMENTS
    ],
)
def test_every_overlay_on_every_experiment_is_built_of_what_it_says_and_of_nothing_else(
    experiment: Path, where: Callable, capsys
) -> None:
    for number, overlay in enumerate(OPTIMIZERS):
        schedule = SCHEDULES[number % len(SCHEDULES)]
        stack = ("--config", overlay, "--config", schedule)
        task = build_on(experiment, where, capsys, *stack)
        assert_optimizer_is(task, overlay)
        assert_schedule_is(task, schedule)


def test_an_overlay_changes_one_thing_only() -> None:
    gpt = ("--config", CONFIGS / "source/gpt.yaml")
    alone = built(*gpt)
    assert optimizer_of(alone).defaults["betas"] == (0.9, 0.99)
    other_optimizer = built(*gpt, "--config", CONFIGS / "optimizer/adamw.yaml")
    assert told_state(scheduler_of(other_optimizer)) == told_state(scheduler_of(alone))
    other_schedule = built(*gpt, "--config", CONFIGS / "schedule/step.yaml")
    assert optimizer_of(other_schedule).defaults == optimizer_of(alone).defaults


@pytest.mark.parametrize("overlay", [*OPTIMIZERS, *SCHEDULES], ids=name)
def test_an_overlay_trains_one_step_and_stands_in_the_run_folder(
    overlay: Path, run: Callable[..., Path]
) -> None:
    bare = ("--trainer.callbacks", "null", "--test_after_fit", "false")
    stack = ("--config", CONFIGS / "digits/mlp.yaml", "--config", overlay)
    folder = run("fit", *stack, *ONE_STEP, *bare)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    arguments = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    path, told = choice(overlay)
    kind = "optimizer" if overlay in OPTIMIZERS else "lr_scheduler"
    assert arguments[kind]["class_path"] == path
    assert {key: arguments[kind]["init_args"][key] for key in told} == told
    if overlay in OPTIMIZERS:
        groups = saved["optimizer_states"][0]["param_groups"]
        assert groups[0]["weight_decay"] == told.get("weight_decay", 0)
    # What the folder says runs again, and another overlay stacks on that.
    other = (SCHEDULES if overlay in OPTIMIZERS else OPTIMIZERS)[0]
    task = built("--config", folder / "config.yaml", "--config", other)
    for stacked in (overlay, other):
        (assert_optimizer_is if stacked in OPTIMIZERS else assert_schedule_is)(task, stacked)


def test_the_class_of_a_flag_starts_afresh_and_an_argument_alone_does_not() -> None:
    gpt = ("--config", CONFIGS / "digits/mlp.yaml", "--config", CONFIGS / "optimizer/nesterov.yaml")
    plain = SGD([nn.Parameter(torch.zeros(1))], lr=0.2).defaults
    for flag in (
        ("--model.optimizer", "torch.optim.SGD"),
        ("--model.optimizer=SGD",),
        ("--model.init_args.optimizer.class_path", "torch.optim.SGD"),
    ):
        task = built(*gpt, *flag, "--model.optimizer.lr", "0.2")
        assert optimizer_of(task).defaults == plain
    kept = optimizer_of(built(*gpt, "--model.optimizer.lr", "0.2")).defaults
    assert kept == plain | {"momentum": 0.9, "nesterov": True}
    schedule = ("--model.lr_scheduler", "modules.optim.WarmupCosine")
    warm = (*gpt, *schedule, "--model.lr_scheduler.warmup_steps", 5)
    assert scheduler_of(built(*warm)).warmup_steps == 5
    assert scheduler_of(built(*warm, *schedule)).warmup_steps == 0
    assert optimizer_of(built(*warm, *schedule)).defaults["momentum"] == 0.9


def test_a_config_that_changes_one_argument_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "slower.yaml").write_text("model: {init_args: {optimizer: {init_args: {lr: 1}}}}")
    stack = ("--config", CONFIGS / "optimizer/momentum.yaml", "--config", tmp_path / "slower.yaml")
    found = optimizer_of(built("--config", CONFIGS / "digits/mlp.yaml", *stack)).defaults
    assert (found["lr"], found["momentum"]) == (1, 0.9)


def test_null_is_inserted_only_between_two_choices() -> None:
    sgd, cosine = CONFIGS / "optimizer/sgd.yaml", CONFIGS / "schedule/cosine.yaml"
    configs = ["--config", str(TINY), "--config", str(sgd), "--config", str(cosine)]
    assert Arguments(["fit", *configs]).to_words() == ["fit", *configs]
    twice = Arguments(["fit", *configs, "-c", str(sgd), "--model.optimizer", "null"])
    assert twice.to_words() == [
        *("fit", *configs, "--model.optimizer", "null", "--config", str(sgd)),
        *("--model.optimizer", "null"),
    ]


def test_a_bare_name_is_that_of_torch_though_ours_has_it_too() -> None:
    from modules.scratch import optimizers  # noqa: F401

    task = built("--config", TINY, "--model.optimizer", "Adam", "--model.optimizer.lr", "0.5")
    assert type(optimizer_of(task)) is Adam


def test_one_cycle_peaks_at_the_learning_rate_of_the_optimizer() -> None:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    schedule, rates = OneCycle(optimizer, total_steps=50), []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert (rates[0], max(rates), rates[-1]) == pytest.approx((0.1 / 25, 0.1, 0.1 / 250_000))


def test_one_cycle_gives_no_momentum_to_an_optimizer_without() -> None:
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


def test_a_schedule_knows_how_many_batches_each_epoch_accumulates() -> None:
    callback = GradientAccumulationScheduler({0: 1, 1: 2, 2: 4})
    schedule = partial(WarmupCosine, final_fraction=0.1)
    sgd, limits = partial(SGD, lr=0.5), {"limit_train_batches": 6, "max_epochs": 3}
    watch = fit(sgd, schedule, **limits, callbacks=[callback])
    steps = [6, 3, 2]  # the last batches of an epoch make a step, too
    assert watch.rate_after == pytest.approx(0.05)
    cosine = [0.05 + 0.45 * (1 + math.cos(math.pi * t / sum(steps))) / 2 for t in range(11)]
    assert sorted(set(watch.rates), reverse=True) == pytest.approx(cosine)


def test_a_schedule_to_the_end_of_an_endless_run_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="which is unlimited"):
        fit(partial(SGD, lr=0.5), WarmupCosine, max_epochs=-1, max_steps=-1)


def test_a_plateau_is_looked_for_where_validation_is(monkeypatch) -> None:
    from lightning.pytorch.cli import ReduceLROnPlateau

    seen = []
    true = ReduceLROnPlateau.step
    monkeypatch.setattr(
        ReduceLROnPlateau, "step", lambda self, metric: (seen.append(metric), true(self, metric))
    )
    plateau = partial(ReduceLROnPlateau, monitor="val/loss", patience=1, threshold=1e9)
    by_steps = {"check_val_every_n_epoch": None, "val_check_interval": 3, "max_steps": 9}
    watch = fit(partial(SGD, lr=0.5), plateau, limit_train_batches=9, **by_steps)
    assert len(seen) == 3
    assert watch.rates == pytest.approx([0.5] * 6 + [0.05] * 3)  # two without a better one
