"""Overlays of configs/optimizer and configs/schedule replace exactly what they name."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import train
from cli.arguments import Arguments
from cli.command_line import CLI
from tests.support import ROOT, TINY
from tests.support.configs import ADAPTERS, EXPERIMENTS, ONE_STEP, name

CONFIGS = ROOT / "configs"
OPTIMIZERS = sorted(CONFIGS.glob("optimizer/*.yaml"))
SCHEDULES = sorted(CONFIGS.glob("schedule/*.yaml"))


def chosen(description: Any) -> tuple[str, dict[str, Any]]:
    """Class path and arguments of a class in a config."""
    if isinstance(description, str | None):
        return description or "", {}
    return description["class_path"], description.get("init_args") or {}


def choice(overlay: Path) -> tuple[str, dict[str, Any]]:
    ((_, description),) = yaml.safe_load(overlay.read_text())["model"]["init_args"].items()
    return chosen(description)


def classes(experiment: Path) -> tuple[str, str]:
    arguments = yaml.safe_load(experiment.read_text())["model"].get("init_args", {})
    return chosen(arguments.get("optimizer"))[0], chosen(arguments.get("lr_scheduler"))[0]


def one_of_each_class() -> Iterator[Path]:
    """Yield experiments that together have all optimizers and schedules of the configs.

    What an overlay inherits depends on the class that it replaces, and on nothing else.
    """
    found: set[str] = set()
    for path in EXPERIMENTS:
        if not found.issuperset(classes(path)):
            found.update(classes(path))
            yield path


def build(path: str, *inputs: Any, **arguments: Any) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(*inputs, **arguments)


def parsed(*arguments: object) -> Namespace:
    """The task's arguments as train.py parses a command line."""
    found: list[Namespace] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CLI, "instantiate_classes", lambda self: found.append(self.config["fit"]))
        patch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
        train.main(["fit", *map(str, arguments)])
    return found[0].model.init_args


def optimizer_of(task: Namespace) -> Optimizer:
    description = task.optimizer.as_dict()
    weights = [nn.Parameter(torch.zeros(1))]
    return build(description["class_path"], weights, **description["init_args"])


def scheduler_of(task: Namespace) -> Any:
    if task.lr_scheduler is None:
        return None
    description = task.lr_scheduler.as_dict()
    return build(description["class_path"], optimizer_of(task), **description.get("init_args", {}))


def plain_state(scheduler: Any) -> dict[str, Any]:
    """The attributes of a schedule that its arguments set."""
    if scheduler is None:
        return {}
    return {key: v for key, v in vars(scheduler).items() if isinstance(v, int | float | str)}


def assert_optimizer_is(task: Namespace, overlay: Path) -> None:
    path, arguments = choice(overlay)
    expected = build(path, [nn.Parameter(torch.zeros(1))], **arguments)
    found = optimizer_of(task)
    assert type(found) is type(expected)
    assert found.defaults == expected.defaults


def assert_schedule_is(task: Namespace, overlay: Path) -> None:
    path, arguments = choice(overlay)
    expected = build(path, optimizer_of(task), **arguments)
    found = scheduler_of(task)
    assert type(found) is type(expected)
    assert plain_state(found) == plain_state(expected)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", one_of_each_class(), ids=name)
def test_overlay_replaces_class_and_all_arguments(experiment: Path) -> None:
    for number, overlay in enumerate(OPTIMIZERS):
        schedule = SCHEDULES[number % len(SCHEDULES)]
        task = parsed("--config", experiment, "--config", overlay, "--config", schedule)
        assert_optimizer_is(task, overlay)
        assert_schedule_is(task, schedule)


def test_overlay_changes_nothing_else() -> None:
    gpt = ("--config", CONFIGS / "source/gpt.yaml")
    alone = parsed(*gpt)
    assert optimizer_of(alone).defaults["betas"] == (0.9, 0.99)
    other_optimizer = parsed(*gpt, "--config", CONFIGS / "optimizer/adamw.yaml")
    assert plain_state(scheduler_of(other_optimizer)) == plain_state(scheduler_of(alone))
    other_schedule = parsed(*gpt, "--config", CONFIGS / "schedule/step.yaml")
    assert optimizer_of(other_schedule).defaults == optimizer_of(alone).defaults


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [*OPTIMIZERS, *SCHEDULES], ids=name)
def test_overlay_trains_one_step_and_is_recorded(overlay: Path, run: Callable[..., Path]) -> None:
    stack = ("--config", CONFIGS / "digits/mlp.yaml", "--config", overlay)
    folder = run("fit", *stack, *ONE_STEP, "--trainer.callbacks", "null")
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    arguments = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    path, arguments_of_overlay = choice(overlay)
    kind = "optimizer" if overlay in OPTIMIZERS else "lr_scheduler"
    assert arguments[kind]["class_path"] == path
    assert {key: arguments[kind]["init_args"][key] for key in arguments_of_overlay} == (
        arguments_of_overlay
    )
    if overlay in OPTIMIZERS:
        groups = saved["optimizer_states"][0]["param_groups"]
        assert groups[0]["weight_decay"] == arguments_of_overlay.get("weight_decay", 0)
    # The recorded config accepts another overlay.
    other = (SCHEDULES if overlay in OPTIMIZERS else OPTIMIZERS)[0]
    task = parsed("--config", folder / "config.yaml", "--config", other)
    for stacked in (overlay, other):
        (assert_optimizer_is if stacked in OPTIMIZERS else assert_schedule_is)(task, stacked)


@pytest.mark.parametrize("overlay", ADAPTERS, ids=name)
def test_adapter_applies_to_an_experiment_and_replaces_another(
    overlay: Path, run: Callable[..., Path]
) -> None:
    other = ADAPTERS[ADAPTERS.index(overlay) - 1]
    text = (CONFIGS / "source/gpt.yaml", CONFIGS / "size/gpt-nano.yaml")
    flags = ("--model.net.tie_embeddings", "false", "--data.context", 16, "--data.batch_size", 2)
    stack = [word for path in (*text, other, overlay) for word in ("--config", path)]
    folder = run("fit", *stack, *flags, *ONE_STEP, "--trainer.callbacks", "null")
    adapter = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["adapter"]
    path, arguments = choice(overlay)
    assert chosen(adapter) == (path, vars(build(path, **arguments)))
    results = yaml.safe_load((folder / "results.json").read_text())
    assert 0 < results["trainable_parameters"] < 0.7 * results["parameters"]


def test_class_in_a_flag_discards_earlier_arguments_and_an_argument_does_not() -> None:
    gpt = ("--config", CONFIGS / "digits/mlp.yaml", "--config", CONFIGS / "optimizer/nesterov.yaml")
    plain = SGD([nn.Parameter(torch.zeros(1))], lr=0.2).defaults
    for flag in (
        ("--model.optimizer", "torch.optim.SGD"),
        ("--model.optimizer=SGD",),
        ("--model.init_args.optimizer.class_path", "torch.optim.SGD"),
    ):
        task = parsed(*gpt, *flag, "--model.optimizer.lr", "0.2")
        assert optimizer_of(task).defaults == plain
    kept = optimizer_of(parsed(*gpt, "--model.optimizer.lr", "0.2")).defaults
    assert kept == plain | {"momentum": 0.9, "nesterov": True}
    schedule = ("--model.lr_scheduler", "modules.optim.WarmupCosine")
    warm = (*gpt, *schedule, "--model.lr_scheduler.warmup_steps", 5)
    assert scheduler_of(parsed(*warm)).warmup_steps == 5
    assert scheduler_of(parsed(*warm, *schedule)).warmup_steps == 5  # flags in any order
    assert optimizer_of(parsed(*warm, *schedule)).defaults["momentum"] == 0.9


def test_config_that_changes_one_argument_keeps_the_others(tmp_path: Path) -> None:
    (tmp_path / "slower.yaml").write_text("model: {init_args: {optimizer: {init_args: {lr: 1}}}}")
    stack = ("--config", CONFIGS / "optimizer/momentum.yaml", "--config", tmp_path / "slower.yaml")
    found = optimizer_of(parsed("--config", CONFIGS / "digits/mlp.yaml", *stack)).defaults
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


def test_bare_optimizer_name_is_torchs_even_if_ours_exists() -> None:
    from modules.scratch import optimizers  # noqa: F401

    task = parsed("--config", TINY, "--model.optimizer", "Adam", "--model.optimizer.lr", "0.5")
    assert type(optimizer_of(task)) is Adam
