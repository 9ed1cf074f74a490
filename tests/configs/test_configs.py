"""Every config in configs/ has a comment and expectations, is parsed completely and trains."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule

from engine.run.expectations import is_met
from modules.nets import GPT
from tests.support import ROOT
from tests.support.configs import (
    ADAPTERS,
    CHOICES,
    EXPERIMENTS,
    ONE_STEP,
    OVERLAYS,
    SIZES,
    SMALLER,
    SOME_STEPS,
    data_for,
    name,
    run_before,
    skipped_without_data,
)
from tests.support.resume import Crash, assert_same_run, crash_after

# Millions of parameters with 50,257 tokens and 1,024 positions, the sizes of Radford et al. 2019.
MILLIONS = {"gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558}

# One per kind of task trains in the default suite, the others in the slow tests.
TRAINED_BY_DEFAULT = (
    *("digits/cnn", "shakespeare/gpt_small_cpu", "toy/reversed_words"),
    *("sst2/transformer", "imdb/cbow", "source/bert", "glue/mrpc", "instruct/dpo"),
)

# Overlays for Transformers only: the config that they are applied to in place of digits/cnn.
BASES = {"activation_checkpointing": "source/gpt"}


def leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, config


def value_at(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def contains(resolved: Any, given: Any) -> bool:
    """Whether a resolved value is the given one, apart from added defaults."""
    if isinstance(given, list):
        return len(resolved) == len(given) and all(map(contains, resolved, given))
    if isinstance(given, dict):
        return all(contains(resolved[key], value) for key, value in given.items())
    if isinstance(resolved, dict):  # of a class given by its path alone
        resolved = resolved["class_path"]
    return bool(resolved == pytest.approx(given) if isinstance(given, float) else resolved == given)


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_config_starts_with_a_comment_that_contains_its_command(config: Path) -> None:
    comment = "".join(line for line in config.open() if line.startswith("#"))
    assert config.read_text().startswith("# ")
    assert f"train.py fit --config configs/{name(config)}.yaml" in comment


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_config_expects_a_result(config: Path) -> None:
    expectations = yaml.safe_load(config.read_text())["expect"]
    assert expectations
    for metric, expectation in expectations.items():
        assert metric.split("/")[0] in ("train", "val", "test")
        assert isinstance(is_met(expectation, 0.0), bool)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            path,
            id=name(path),
            marks=[] if name(path) in TRAINED_BY_DEFAULT else [pytest.mark.slow],
        )
        for path in EXPERIMENTS
    ],
)
def test_config_trains_one_step_and_every_key_takes_effect(
    config: Path,
    run: Callable[..., Path],
    data_of: Callable,
    small_texts: Path,
    tmp_path: Path,
    capsys,
) -> None:
    where = ("--data.data_dir", data_for(config, data_of, small_texts, tmp_path))
    flags = (*ONE_STEP, *SMALLER.get(name(config), ()))
    run_before(config, run, where)
    with skipped_without_data(capsys):
        folder = run("fit", "--config", config, *where, *flags)
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    set_by_flags = {flag[2:].split(".")[-1] for flag in flags if str(flag).startswith("--")}
    for path, value in leaves(yaml.safe_load(config.read_text())):
        # The expectations are those of the full run, and not recorded for a shortened one.
        if set_by_flags & {*path} or path[-1] == "callbacks" or path[0] == "expect":
            continue
        assert contains(value_at(resolved, path), value), path


@pytest.mark.slow
@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_config_resumes_bit_exactly(
    config: Path,
    run: Callable[..., Path],
    data_of: Callable,
    small_texts: Path,
    tmp_path: Path,
    capsys,
) -> None:
    """With the test of the best checkpoint and all figures, after which metrics are equal, too."""
    where = ("--data.data_dir", data_for(config, data_of, small_texts, tmp_path))
    arguments = ("fit", "--config", config, *where, *SOME_STEPS, *SMALLER.get(name(config), ()))
    run_before(config, run, where)
    with skipped_without_data(capsys):
        uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(4))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert (resumed.parent.name, resumed.name) == ("stopped", "001")
    assert_same_run(uninterrupted, resumed)
    path = resumed / "checkpoints/last.ckpt"
    task = LightningModule.load_from_checkpoint(path, weights_only=True)
    results = json.loads((resumed / "results.json").read_text())
    assert type(task).__name__ == results["config"]["model"]["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("size", SIZES, ids=name)
def test_size_has_as_many_parameters_as_in_its_paper(size: Path) -> None:
    arguments = yaml.safe_load(size.read_text())["model"]["init_args"]["net"]["init_args"]
    with torch.device("meta"):  # shapes without memory: the largest has 6 GB of weights
        net = GPT(50257, context=1024, **arguments)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert round(millions) == MILLIONS.get(size.stem, round(millions))
    assert set(MILLIONS) <= {path.stem for path in SIZES}


def test_size_applies_to_a_gpt_config(run: Callable[..., Path]) -> None:
    stack = [ROOT / "configs/source/gpt.yaml", ROOT / "configs/size/gpt-nano.yaml"]
    folder = run("fit", "--config", stack[0], "--config", stack[1], *ONE_STEP)
    net = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert net["init_args"]["dim"] == 48


@pytest.mark.parametrize("overlay", [*OVERLAYS, *sorted(CHOICES), *ADAPTERS, *SIZES], ids=name)
def test_overlay_starts_with_a_comment_that_contains_its_command(overlay: Path) -> None:
    assert overlay.read_text().startswith("# ")
    assert f"--config configs/{name(overlay)}.yaml" in overlay.read_text()


REFUSED_ON_CPUS = ("trainer/fp8",)
# Other tests of the default suite train with these for seconds.
TRAINED_ELSEWHERE = (
    *("logger/mlflow", "logger/wandb", "trainer/lr_finder", "trainer/batch_size_finder"),
)


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param(
            path, id=name(path), marks=[pytest.mark.slow] if name(path) in TRAINED_ELSEWHERE else []
        )
        for path in OVERLAYS
        if name(path) not in REFUSED_ON_CPUS
    ],
)
def test_overlay_applies_to_the_quickstart_config(overlay: Path, run: Callable[..., Path]) -> None:
    # In one process on the CPU; tests/distributed/test_many_devices.py trains on several devices.
    one_process = ("--trainer.devices", 1, "--trainer.strategy", "auto")
    config = ROOT / f"configs/{BASES.get(overlay.stem, 'digits/cnn')}.yaml"
    stack = ("--config", config, "--config", overlay)
    # Stochastic weight averaging needs three epochs; max_steps still ends the run after one step.
    folder = run("fit", *stack, *ONE_STEP, "--trainer.max_epochs", 3, *one_process)
    given = yaml.safe_load(overlay.read_text())["trainer"]
    if given.get("fast_dev_run"):
        assert folder is None
        return
    resolved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]
    base = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    base = [one if isinstance(one, str) else one["class_path"] for one in base]
    for path, value in leaves(given):
        if path == ("callbacks+",):  # appended to those of the experiment
            added = [one if isinstance(one, str) else one["class_path"] for one in value]
            joined = [callback["class_path"] for callback in resolved["callbacks"]]
            assert joined == [*base, *added]
        elif path[0] == "logger+":
            assert contains(value_at(resolved["logger"][0], path[1:]), value)
        elif path[0] not in ("accelerator", "devices", "strategy"):
            assert value_at(resolved, path) == value
    assert folder.parent.name == name(config).replace("/", "-")


def test_configs_are_found() -> None:
    assert {"digits/cnn", "mnist/mlp"} <= {name(config) for config in EXPERIMENTS}
