"""Overlays of configs/trainer that bring a callback: each does what its comment says."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from callbacks import LearningRateFinder
from callbacks.monitoring.layer_health import read_layers
from callbacks.training.learning_rate_finder import steepest
from datamodules import Digits
from modules import Classifier
from tests.support import ROOT

CONFIGS = ROOT / "configs"
MLP = ("--config", CONFIGS / "digits/mlp.yaml")


def overlay(name: str) -> tuple[str, Path]:
    return "--config", CONFIGS / f"trainer/{name}.yaml"


def without_callbacks(tmp_path: Path) -> tuple[str, Path]:
    """An overlay that leaves the experiment's pictures out, before others bring theirs."""
    (tmp_path / "bare.yaml").write_text("trainer: {callbacks: []}\n")
    return "--config", tmp_path / "bare.yaml"


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture
def short(run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A run of digits/mlp without its pictures."""
    return lambda *arguments: run("fit", *MLP, *without_callbacks(tmp_path), *arguments)


def test_overlays_join_the_callbacks_of_an_experiment_and_each_other(run: Callable) -> None:
    stack = (*overlay("early_stopping"), *overlay("layer_health"))
    folder = run("fit", *MLP, *stack, "--trainer.max_epochs", 1, "--test_after_fit", "false")
    resolved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"]
    names = [callback["class_path"].rpartition(".")[2] for callback in resolved]
    assert names[0] == "TrainingCurves"
    assert names[-2:] == ["EarlyStopping", "LayerHealth"]
    assert len(names) == 7


def test_overlays_stack_where_there_are_no_callbacks(run: Callable) -> None:
    tiny = ("--config", ROOT / "tests/configs/digits/tiny.yaml")
    folder = run("fit", *tiny, *overlay("layer_health"), "--trainer.max_epochs", 6)
    assert read_layers(folder / "layers.csv")["dead_units"]
    assert (folder / "figures/layer_health.png").exists()


def test_a_callback_may_stand_alone(short: Callable) -> None:
    folder = short("--trainer.callbacks", "callbacks.LayerHealth", "--trainer.max_epochs", 6)
    assert (folder / "figures/layer_health.png").exists()


def test_early_stopping_stops_what_learns_no_more(short: Callable) -> None:
    still = ("--model.optimizer.lr", 0, "--test_after_fit", "false")
    assert results(short(*overlay("early_stopping"), *still))["epochs"] == 1 + 5


class CopiesTheTask(L.Callback):
    """As averages do; what they begin with is a copy."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        copied: dict[int, object] = {}
        copy.deepcopy(pl_module, copied)
        assert id(pl_module.net) in copied
        assert not {id(trainer), id(trainer.datamodule)} & {*copied}


def test_a_copy_of_a_task_is_without_trainer_and_data(short: Callable) -> None:
    short("--trainer.callbacks", f"{__name__}.CopiesTheTask", "--trainer.max_epochs", 1)


def test_the_average_of_the_last_epochs_is_kept_and_tested(short: Callable) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    true = Classifier.on_train_epoch_end

    def remember(self: Classifier) -> None:
        seen.append({name: w.detach().clone() for name, w in self.net.named_parameters()})
        true(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", remember)
        folder = short(*overlay("swa"), "--trainer.max_epochs", 8)
    path = folder / "checkpoints/average.ckpt"
    saved = torch.load(path, weights_only=True)
    # 0.75 · 8: from the beginning of the sixth epoch on, one set of weights an epoch
    for name, weight in saved["state_dict"].items():
        if name.startswith("net."):
            mean = torch.stack([w[name.removeprefix("net.")] for w in seen[4:7]]).mean(dim=0)
            torch.testing.assert_close(weight, mean)
    (group, *_) = saved["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.001, rel=0.2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (tested,) = trainer.test(Classifier.load_from_checkpoint(path), Digits(64), verbose=False)
    assert results(folder)["metrics"]["test/loss"] == pytest.approx(tested["test/loss"], rel=1e-5)


def test_an_average_never_holds_what_has_learnt_nothing(refused) -> None:
    told = "the average would begin with weights that have learnt nothing"
    assert told in refused("fit", *MLP, *overlay("swa"), "--trainer.max_epochs", 2)


def test_finders_may_be_stacked(short: Callable, capsys) -> None:
    one, other = overlay("lr_finder"), overlay("batch_size_finder")
    few = ("--trainer.callbacks.max_val", 64, "--trainer.max_epochs", 1)
    short(*one, *other, *few)
    assert capsys.readouterr().out.count("learning rate:") == 1
    short(*other, *few, *one)
    told = capsys.readouterr().out
    assert told.index("batch size: 64") < told.index("learning rate:")


def test_a_complete_run_is_judged_by_its_average_again(
    short: Callable, run: Callable, refused
) -> None:
    folder = short(*overlay("swa"), "--trainer.max_epochs", 3)
    assert "serialize" not in (folder / "config.yaml").read_text()
    before = results(folder)["metrics"]
    assert run("fit", "--resume", folder) == folder
    assert results(folder)["metrics"]["test/loss"] == before["test/loss"]
    told = "there are two of StochasticWeightAveraging"
    assert told in refused("fit", "--resume", folder, *overlay("swa"))


def test_the_moving_average_is_what_is_validated_saved_and_tested(short: Callable) -> None:
    folder = short(*overlay("ema"), "--trainer.max_epochs", 3)
    path = folder / "checkpoints/best.ckpt"
    saved = torch.load(path, weights_only=True)
    last, mean = saved["current_model_state"], saved["state_dict"]
    assert not torch.equal(last["net.layers.1.weight"], mean["net.layers.1.weight"])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    task = Classifier.load_from_checkpoint(path, weights_only=True)
    (tested,) = trainer.test(task, Digits(64), verbose=False)
    assert results(folder)["metrics"]["test/loss"] == pytest.approx(tested["test/loss"], rel=1e-5)


def test_the_finder_sets_optimizer_and_schedule_and_draws_its_curve(
    short: Callable, capsys
) -> None:
    tiny_rate = ("--model.optimizer.lr", 1e-7, "--trainer.max_epochs", 10)
    folder = short(*overlay("lr_finder"), *tiny_rate)
    found = float(capsys.readouterr().out.split("learning rate: ")[1].split(",")[0])
    assert 1e-4 < found < 0.5
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    (schedule,) = saved["lr_schedulers"]
    assert schedule["base_lrs"] == pytest.approx([found] * len(schedule["base_lrs"]), rel=0.05)
    assert results(folder)["steps"] == 10 * (1257 // 64)  # the search counts for nothing
    assert results(folder)["metrics"]["test/accuracy"] > 0.9  # at 1e-7 it would be 0.1
    picture = np.asarray(Image.open(folder / "figures/learning_rate.png").convert("L"))
    assert picture.std() > 10


def test_the_steepest_place_is_that_of_the_picture() -> None:
    rates = np.logspace(-6, 0, 100)
    losses = 2 - 1.5 / (1 + np.exp(-3 * np.log(rates / 0.01)))  # falls from 2 to 0.5 around 0.01
    losses[:10] = np.linspace(5, 2, 10)  # the mean of too few batches
    assert steepest(rates, losses) == pytest.approx(0.01, rel=0.1)
    assert steepest(rates, np.sort(losses)) is None  # it only grows
    assert steepest(rates[:11], losses[:11]) is None


def test_the_first_losses_of_the_curve_are_those_of_the_net(short: Callable, monkeypatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "callbacks.training.learning_rate_finder.steepest",
        lambda rates, losses: seen.append(losses),
    )
    with pytest.warns(UserWarning, match="keeps the config's rate"):
        short(*overlay("lr_finder"), "--trainer.max_epochs", 1, "--test_after_fit", "false")
    (losses,) = seen
    assert len(losses) > 60  # an epoch has 19 batches only
    # Rates of 0.000001 change nothing: a mean of guesses, ln 10 = 2.3 and what the weights add.
    assert losses[:20] == pytest.approx([2.35] * 20, abs=0.15)


def test_without_a_schedule_the_found_rate_is_that_of_the_optimizer(
    short: Callable, capsys
) -> None:
    constant = ("--model.lr_scheduler", "null", "--trainer.max_epochs", 1)
    folder = short(*overlay("lr_finder"), *constant)
    found = float(capsys.readouterr().out.split("learning rate: ")[1].split(",")[0])
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert found != 0.003
    for group in saved["optimizer_states"][0]["param_groups"]:
        assert group["lr"] == pytest.approx(found, rel=0.05)


def test_a_search_without_a_result_keeps_the_rate_of_the_config(short: Callable) -> None:
    one_epoch = (*overlay("lr_finder"), "--trainer.max_epochs", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "callbacks.training.learning_rate_finder.steepest", lambda rates, losses: None
        )
        with pytest.warns(UserWarning, match="keeps the config's rate"):
            folder = short(*one_epoch)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["base_lrs"][0] == 0.003


def test_a_dry_run_searches_nothing(run: Callable) -> None:
    dry = ("--trainer.fast_dev_run", "true")
    with pytest.warns(UserWarning, match="Skipping learning rate finder"):
        assert run("fit", *MLP, *overlay("lr_finder"), *dry) is None


def test_all_arguments_of_the_finder_are_given_to_lightnings() -> None:
    finder = LearningRateFinder(1e-5, 0.1, 7, "linear", None)
    given = (finder._min_lr, finder._max_lr, finder._num_training_steps, finder._mode)
    assert given == (1e-5, 0.1, 7, "linear")
    assert (finder._early_stop_threshold, finder._update_attr) == (None, False)


def test_the_batch_grows_until_it_is_as_large_as_the_data_allow(short: Callable, capsys) -> None:
    sizes: list[int] = []
    true = Classifier.training_step

    def remember(self: Classifier, batch: tuple, batch_idx: int) -> Any:
        sizes.append(len(batch[1]))
        return true(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", remember)
        folder = short(*overlay("batch_size_finder"), "--trainer.max_epochs", 4)
    # The first trial is Lightning's, with the config's own 64. The largest that 1,257 pictures can
    # fill is taken without a trial, and each of the 4 epochs is one step of it.
    assert sizes == [*[64] * 3, *[64] * 3, *[128] * 3, *[256] * 3, *[512] * 3, *[1024] * 4]
    assert "batch size: 1024" in capsys.readouterr().out
    assert results(folder)["steps"] == 4
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["total_steps"] == 4
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)


def test_memory_that_runs_out_ends_the_search(short: Callable, capsys) -> None:
    true = Classifier.training_step

    def runs_out(self: Classifier, batch: tuple, batch_idx: int) -> Any:
        if len(batch[1]) > 200:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 EiB")
        return true(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", runs_out)
        short(*overlay("batch_size_finder"), "--trainer.max_epochs", 1)
    assert "batch size: 128" in capsys.readouterr().out


def test_accumulation_grows_with_the_epochs_and_the_schedule_knows(short: Callable) -> None:
    folder = short(*overlay("gradient_accumulation"), "--trainer.max_epochs", 12)
    steps = [19] * 5 + [10] * 5 + [5] * 2  # of 19 batches an epoch, the last ones incomplete
    assert results(folder)["steps"] == sum(steps)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["total_steps"] == sum(steps)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)
