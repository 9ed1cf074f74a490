"""Every config in configs/ says what it is for, is read to its last key, and runs one step."""

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

# Millions of parameters with GPT-2's 50,257 tokens and 1,024 positions, as Radford et al. and
# minGPT name their nets (minGPT counts without the table of logits, GPT-2 ties it).
MILLIONS = {"gpt2": 124, "gpt2-medium": 355, "gpt2-large": 774, "gpt2-xl": 1558}


def leaves(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, config


def value_at(config: Any, path: tuple[str, ...]) -> Any:
    """The value in a resolved config, where a class may stand alone or with its arguments."""
    for key in path:
        config = config[key]
    return config


def holds(seen: Any, told: Any) -> bool:
    """Whether a resolved value is what the config told, and perhaps defaults beside it."""
    if isinstance(told, list):
        return len(seen) == len(told) and all(map(holds, seen, told))
    if isinstance(told, dict):
        return all(holds(seen[key], value) for key, value in told.items())
    if isinstance(seen, dict):  # the short form of a class without arguments
        seen = seen["class_path"]
    return bool(seen == pytest.approx(told) if isinstance(told, float) else seen == told)


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_a_config_opens_with_a_comment_that_holds_its_command(config: Path) -> None:
    comment = "".join(line for line in config.open() if line.startswith("#"))
    assert config.read_text().startswith("# ")
    assert f"train.py fit --config configs/{name(config)}.yaml" in comment


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_a_config_promises_a_result(config: Path) -> None:
    promises = yaml.safe_load(config.read_text())["expect"]
    assert promises
    for metric, promise in promises.items():
        assert metric.split("/")[0] in ("train", "val", "test")
        assert isinstance(is_met(promise, 0.0), bool)


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_a_config_runs_one_step_and_each_of_its_keys_is_read(
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
        if path[-1] in set_by_flags or path[-1] == "callbacks":
            continue
        assert holds(value_at(resolved, path), value), path
    path = folder / "checkpoints/last.ckpt"  # alone it is enough to have the task again
    task = LightningModule.load_from_checkpoint(path, weights_only=True)
    assert type(task).__name__ == resolved["model"]["class_path"].rpartition(".")[2]


@pytest.mark.slow
@pytest.mark.parametrize("config", EXPERIMENTS, ids=name)
def test_a_config_goes_on_as_if_it_had_never_stopped(
    config: Path,
    run: Callable[..., Path],
    data_of: Callable,
    small_texts: Path,
    tmp_path: Path,
    capsys,
) -> None:
    where = ("--data.data_dir", data_for(config, data_of, small_texts, tmp_path))
    arguments = ("fit", "--config", config, *where, *SOME_STEPS, *SMALLER.get(name(config), ()))
    run_before(config, run, where)
    with skipped_without_data(capsys):
        whole = run(*arguments, "--experiment", "whole")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(4))
    again = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert (again.parent.name, again.name) == ("stopped", "001")
    assert_same_run(whole, again)


@pytest.mark.parametrize("size", SIZES, ids=name)
def test_a_named_size_is_that_of_its_paper(size: Path) -> None:
    arguments = yaml.safe_load(size.read_text())["model"]["init_args"]["net"]["init_args"]
    with torch.device("meta"):  # shapes without memory: the largest has 6 GB of weights
        net = GPT(50257, context=1024, **arguments)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert round(millions) == MILLIONS.get(size.stem, round(millions))
    assert set(MILLIONS) <= {path.stem for path in SIZES}


def test_a_named_size_stacks_on_a_gpt(run: Callable[..., Path]) -> None:
    stack = [ROOT / "configs/source/gpt.yaml", ROOT / "configs/size/gpt-nano.yaml"]
    folder = run("fit", "--config", stack[0], "--config", stack[1], *ONE_STEP)
    net = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["net"]
    assert net["init_args"]["dim"] == 48


@pytest.mark.parametrize("overlay", [*OVERLAYS, *sorted(CHOICES), *SIZES], ids=name)
def test_an_overlay_opens_with_a_comment(overlay: Path) -> None:
    assert overlay.read_text().startswith("# ")
    assert f"--config configs/{name(overlay)}.yaml" in overlay.read_text()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name)
def test_an_overlay_stacks_on_the_quickstart(overlay: Path, run: Callable[..., Path]) -> None:
    # Tests stay in one process on the CPU: how the devices are shared is told anew, all else is the
    # overlay's. tests/test_many_devices.py runs it, except for what needs a GPU.
    one_process = ("--trainer.devices", 1, "--trainer.strategy", "auto")
    stack = ("--config", ROOT / "configs/digits/cnn.yaml", "--config", overlay)
    # An average of epochs wants three of them; there is one step all the same.
    folder = run("fit", *stack, *ONE_STEP, "--trainer.max_epochs", 3, *one_process)
    told = yaml.safe_load(overlay.read_text())["trainer"]
    if told.get("fast_dev_run"):
        assert folder is None
        return
    resolved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]
    base = yaml.safe_load((ROOT / "configs/digits/cnn.yaml").read_text())["trainer"]["callbacks"]
    for path, value in leaves(told):
        if path == ("callbacks+",):  # joins those of the experiment and replaces none
            added = [one if isinstance(one, str) else one["class_path"] for one in value]
            joined = [callback["class_path"] for callback in resolved["callbacks"]]
            assert joined == [*base, *added]
        elif path[0] not in ("accelerator", "devices", "strategy"):
            assert value_at(resolved, path) == value
    assert folder.parent.name == "digits-cnn"  # an overlay does not name the experiment


def test_there_are_configs_to_test() -> None:
    assert {"digits/cnn", "mnist/mlp"} <= {name(config) for config in EXPERIMENTS}
