"""Training callbacks, through their overlays in configs/trainer."""

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
from callbacks.training.learning_rate_finder import steepest_descent
from datamodules import Digits
from modules import Classifier
from plotting.layer_health import read_layers
from tests.support import ROOT

CONFIGS = ROOT / "configs"
MLP = ("--config", CONFIGS / "digits/mlp.yaml")


def overlay(name: str) -> tuple[str, Path]:
    return "--config", CONFIGS / f"trainer/{name}.yaml"


def without_callbacks(tmp_path: Path) -> tuple[str, Path]:
    """Return an overlay that removes the experiment's callbacks."""
    (tmp_path / "bare.yaml").write_text("trainer: {callbacks: []}\n")
    return "--config", tmp_path / "bare.yaml"


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.fixture
def short(run: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Run digits/mlp without its callbacks."""
    return lambda *arguments: run("fit", *MLP, *without_callbacks(tmp_path), *arguments)


def test_overlays_add_to_the_callbacks_of_an_experiment(run: Callable) -> None:
    stack = (*overlay("early_stopping"), *overlay("layer_health"))
    folder = run("fit", *MLP, *stack, "--trainer.max_epochs", 1, "--test_after_fit", "false")
    resolved = yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["callbacks"]
    names = [callback["class_path"].rpartition(".")[2] for callback in resolved]
    assert names[0] == "TrainingCurves"
    assert names[-2:] == ["EarlyStopping", "LayerHealth"]
    assert len(names) == 7


def test_overlay_works_without_callbacks_in_the_experiment(run: Callable) -> None:
    tiny = ("--config", ROOT / "tests/configs/digits/tiny.yaml")
    folder = run("fit", *tiny, *overlay("layer_health"), "--trainer.max_epochs", 6)
    assert read_layers(folder / "layers.csv")["dead_units"]
    assert (folder / "figures/layer_health.png").exists()


def test_callback_needs_no_list(short: Callable) -> None:
    folder = short("--trainer.callbacks", "callbacks.LayerHealth", "--trainer.max_epochs", 6)
    assert (folder / "figures/layer_health.png").exists()


def test_early_stopping_stops_without_improvement(short: Callable) -> None:
    still = ("--model.optimizer.lr", 0, "--test_after_fit", "false")
    assert results(short(*overlay("early_stopping"), *still))["epochs"] == 1 + 5


class CopiesTheTask(L.Callback):
    """Copy the task, as weight averaging does."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        copied: dict[int, object] = {}
        copy.deepcopy(pl_module, copied)
        assert id(pl_module.net) in copied
        assert not {id(trainer), id(trainer.datamodule)} & {*copied}


def test_copying_a_task_does_not_copy_trainer_and_data(short: Callable) -> None:
    short("--trainer.callbacks", f"{__name__}.CopiesTheTask", "--trainer.max_epochs", 1)


def test_stochastic_weight_average_is_saved_and_tested(short: Callable) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    original = Classifier.on_train_epoch_end

    def remember(self: Classifier) -> None:
        seen.append({name: w.detach().clone() for name, w in self.net.named_parameters()})
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", remember)
        folder = short(*overlay("swa"), "--trainer.max_epochs", 8)
    path = folder / "checkpoints/average.ckpt"
    saved = torch.load(path, weights_only=True)
    # Averaging starts in epoch 0.75 · 8, counted from 1; one set of weights per epoch.
    for name, weight in saved["state_dict"].items():
        if name.startswith("net."):
            mean = torch.stack([w[name.removeprefix("net.")] for w in seen[4:7]]).mean(dim=0)
            torch.testing.assert_close(weight, mean)
    (group, *_) = saved["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.001, rel=0.2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (tested,) = trainer.test(Classifier.load_from_checkpoint(path), Digits(64), verbose=False)
    assert results(folder)["metrics"]["test/loss"] == pytest.approx(tested["test/loss"], rel=1e-5)


def test_averaging_from_the_first_epoch_is_refused(refused) -> None:
    message = "the average would include the untrained weights"
    assert message in refused("fit", *MLP, *overlay("swa"), "--trainer.max_epochs", 2)


@pytest.mark.slow
def test_finders_can_be_combined(short: Callable, capsys) -> None:
    one, other = overlay("lr_finder"), overlay("batch_size_finder")
    few = ("--trainer.callbacks.max_val", 64, "--trainer.max_epochs", 1)
    short(*one, *other, *few)
    assert capsys.readouterr().out.count("learning rate:") == 1
    short(*other, *few, *one)
    output = capsys.readouterr().out
    assert output.index("batch size: 64") < output.index("learning rate:")


def test_resume_of_a_complete_run_tests_its_average(
    short: Callable, run: Callable, refused
) -> None:
    folder = short(*overlay("swa"), "--trainer.max_epochs", 3)
    assert "serialize" not in (folder / "config.yaml").read_text()
    before = results(folder)["metrics"]
    assert run("fit", "--resume", folder) == folder
    assert results(folder)["metrics"]["test/loss"] == before["test/loss"]
    message = "there are two StochasticWeightAveraging"
    assert message in refused("fit", "--resume", folder, *overlay("swa"))


def test_moving_average_is_saved_and_tested(short: Callable) -> None:
    folder = short(*overlay("ema"), "--trainer.max_epochs", 3)
    path = folder / "checkpoints/best.ckpt"
    saved = torch.load(path, weights_only=True)
    last, mean = saved["current_model_state"], saved["state_dict"]
    assert not torch.equal(last["net.layers.1.weight"], mean["net.layers.1.weight"])
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    task = Classifier.load_from_checkpoint(path, weights_only=True)
    (tested,) = trainer.test(task, Digits(64), verbose=False)
    assert results(folder)["metrics"]["test/loss"] == pytest.approx(tested["test/loss"], rel=1e-5)


def test_learning_rate_finder_sets_optimizer_and_schedule_and_draws_figure(
    short: Callable, capsys
) -> None:
    tiny_rate = ("--model.optimizer.lr", 1e-7, "--trainer.max_epochs", 10)
    folder = short(*overlay("lr_finder"), *tiny_rate)
    found = float(capsys.readouterr().out.split("learning rate: ")[1].split()[0])
    assert 1e-4 < found < 0.5
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    (schedule,) = saved["lr_schedulers"]
    assert schedule["base_lrs"] == pytest.approx([found] * len(schedule["base_lrs"]), rel=0.05)
    assert results(folder)["steps"] == 10 * (1257 // 64)  # without those of the search
    assert results(folder)["metrics"]["test/accuracy"] > 0.9  # 0.1 at 1e-7
    pixels = np.asarray(Image.open(folder / "figures/learning_rate.png").convert("L"))
    assert pixels.std() > 10


def test_steepest_descent_is_over_the_logarithm() -> None:
    rates = np.logspace(-6, 0, 100)
    losses = 2 - 1.5 / (1 + np.exp(-3 * np.log(rates / 0.01)))  # falls from 2 to 0.5 around 0.01
    losses[:10] = np.linspace(5, 2, 10)  # averages of too few batches
    assert steepest_descent(rates, losses) == pytest.approx(0.01, rel=0.1)
    assert steepest_descent(rates, np.sort(losses)) is None  # increasing
    assert steepest_descent(rates[:11], losses[:11]) is None


def test_bias_of_the_first_losses_is_corrected(short: Callable, monkeypatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(
        "callbacks.training.learning_rate_finder.steepest_descent",
        lambda rates, losses: seen.append(losses),
    )
    with pytest.warns(UserWarning, match="the learning rate of the config is used"):
        short(*overlay("lr_finder"), "--trainer.max_epochs", 1, "--test_after_fit", "false")
    (losses,) = seen
    assert len(losses) > 60  # an epoch has 19 batches only
    # Learning rates of 1e-6 change nothing: the untrained loss is slightly above ln 10 = 2.3.
    assert losses[:20] == pytest.approx([2.35] * 20, abs=0.15)


def test_learning_rate_finder_works_without_schedule(short: Callable, capsys) -> None:
    constant = ("--model.lr_scheduler", "null", "--trainer.max_epochs", 1)
    folder = short(*overlay("lr_finder"), *constant)
    found = float(capsys.readouterr().out.split("learning rate: ")[1].split()[0])
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert found != 0.003
    for group in saved["optimizer_states"][0]["param_groups"]:
        assert group["lr"] == pytest.approx(found, rel=0.05)


def test_search_without_result_keeps_the_learning_rate(short: Callable) -> None:
    one_epoch = (*overlay("lr_finder"), "--trainer.max_epochs", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "callbacks.training.learning_rate_finder.steepest_descent", lambda rates, losses: None
        )
        with pytest.warns(UserWarning, match="the learning rate of the config is used"):
            folder = short(*one_epoch)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["base_lrs"][0] == 0.003


def test_fast_dev_run_does_not_search(run: Callable) -> None:
    dry = ("--trainer.fast_dev_run", "true")
    with pytest.warns(UserWarning, match="Skipping learning rate finder"):
        assert run("fit", *MLP, *overlay("lr_finder"), *dry) is None


def test_learning_rate_finder_passes_its_arguments() -> None:
    finder = LearningRateFinder(1e-5, 0.1, 7, "linear", None)
    given = (finder._min_lr, finder._max_lr, finder._num_training_steps, finder._mode)
    assert given == (1e-5, 0.1, 7, "linear")
    assert (finder._early_stop_threshold, finder._update_attr) == (None, False)


@pytest.mark.slow
def test_batch_size_is_limited_by_the_training_set(short: Callable, capsys) -> None:
    sizes: list[int] = []
    original = Classifier.training_step

    def remember(self: Classifier, batch: tuple, batch_idx: int) -> Any:
        sizes.append(len(batch[1]))
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", remember)
        folder = short(*overlay("batch_size_finder"), "--trainer.max_epochs", 4)
    # The first trial uses the config's 64. The largest size that 1,257 images can fill is taken
    # without a trial; each of the 4 epochs is one step.
    assert sizes == [*[64] * 3, *[64] * 3, *[128] * 3, *[256] * 3, *[512] * 3, *[1024] * 4]
    assert "batch size: 1024" in capsys.readouterr().out
    assert results(folder)["steps"] == 4
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["total_steps"] == 4
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)


def test_out_of_memory_ends_the_search(short: Callable, capsys) -> None:
    original = Classifier.training_step

    def runs_out(self: Classifier, batch: tuple, batch_idx: int) -> Any:
        if len(batch[1]) > 200:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 EiB")
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "training_step", runs_out)
        short(*overlay("batch_size_finder"), "--trainer.max_epochs", 1)
    assert "batch size: 128" in capsys.readouterr().out


def test_schedule_counts_the_steps_of_accumulation_by_epoch(short: Callable) -> None:
    folder = short(*overlay("gradient_accumulation"), "--trainer.max_epochs", 12)
    steps = [19] * 5 + [10] * 5 + [5] * 2  # 19 batches per epoch
    assert results(folder)["steps"] == sum(steps)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["lr_schedulers"][0]["total_steps"] == sum(steps)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)
