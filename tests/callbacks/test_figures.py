"""Figures of a run: files that are not blank, correct values."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from callbacks import ConfusionMatrix, FeatureMaps, Mistakes, ReliabilityDiagram, TrainingCurves
from engine.errors import UserError
from plotting.reliability_diagram import expected_calibration_error
from tests.support.figures import Digits, Task, make_trainer, read_figure, small_cnn


def all_figures() -> list[L.Callback]:
    return [ConfusionMatrix(), ReliabilityDiagram(), Mistakes(2, 3), FeatureMaps()]


def test_run_writes_figures_that_are_not_blank(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, *all_figures(), TrainingCurves())
    task, data = Task(small_cnn()), Digits()
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {
        "confusion_matrix", "reliability_diagram", "mistakes", "filters", "feature_maps",
        "training_curves",
    }  # fmt: skip
    for name in names:
        pixels = read_figure(tmp_path, name)
        assert min(pixels.shape[:2]) > 250, name
        assert pixels.std() > 0.05, name


def test_no_file_is_written_without_run_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(tmp_path, *all_figures(), TrainingCurves(), fast_dev_run=True)
    task, data = Task(small_cnn()), Digits()
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert not list(tmp_path.rglob("*.png"))


def test_confusion_matrix_has_true_classes_as_rows(tmp_path: Path) -> None:
    callback, task, data = ConfusionMatrix(), Task(small_cnn()), Digits()
    make_trainer(tmp_path, callback).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    expected = torch.zeros(10, 10, dtype=torch.long)
    for true, predicted in zip(targets, task.eval().net(inputs).argmax(1), strict=True):
        expected[true, predicted] += 1
    assert torch.equal(callback.counts, expected)


def test_calibration_error_equals_torchmetrics(tmp_path: Path) -> None:
    callback, task, data = ReliabilityDiagram(bins=10), Task(small_cnn()), Digits()
    make_trainer(tmp_path, callback).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    probabilities = task.eval().net(inputs).softmax(1)
    theirs = multiclass_calibration_error(probabilities, targets, num_classes=10, n_bins=10)
    ours = expected_calibration_error(*callback.sums.numpy())
    assert ours == pytest.approx(theirs.item(), abs=1e-6)  # float32 sums in another order


def test_calibration_error_equals_torchmetrics_at_bin_edges() -> None:
    # Confidences 0.5 (wrong), 0.55 (correct), 0.95 (correct) and 1 (wrong) have gaps of opposite
    # signs, so the error depends on which of them share a bin.
    logits = torch.tensor([[0, 0], [0.2, 0], [3, 0], [3, 0], [200, 0]])
    targets = torch.tensor([1, 0, 0, 0, 1])
    callback, task = ReliabilityDiagram(bins=10), Task(nn.Identity())
    callback.on_test_start(None, task)
    callback.on_test_batch_end(None, task, {"logits": logits}, (None, targets), 0)
    theirs = multiclass_calibration_error(logits.softmax(1), targets, num_classes=2, n_bins=10)
    ours = expected_calibration_error(*callback.sums.numpy())
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


def test_mistakes_start_with_the_most_confident_error(tmp_path: Path, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "callbacks.figures.mistakes.image_mistakes_figure",
        lambda images, kept, *more: seen.update(images=images, kept=kept, more=more) or Figure(),
    )
    task, data = Task(small_cnn()), Digits()
    make_trainer(tmp_path, Mistakes(2, 3)).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    confidences, predicted = task.eval().net(inputs).softmax(1).max(1)
    expected = torch.where(predicted != targets, confidences, 0).argmax()
    np.testing.assert_allclose(
        seen["images"][0, :, :, 0], load_digits().images[expected] / 16, atol=1e-6
    )
    assert seen["kept"].predicted[0] == predicted[expected]
    assert len(seen["kept"].predicted) == 6
    assert seen["more"][-2:] == (300, int((predicted != targets).sum()))


@pytest.mark.parametrize("callback", [Mistakes, FeatureMaps])
def test_inputs_other_than_images_give_a_warning_and_no_figure(tmp_path: Path, callback) -> None:
    words = DataLoader(TensorDataset(torch.randint(9, (20, 6)), torch.randint(10, (20,))), 5)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 10))
    with pytest.warns(UserWarning, match=f"{callback.__name__} draws nothing"):
        make_trainer(tmp_path, callback()).test(Task(net), words, verbose=False)
    assert not (tmp_path / "figures").exists()


def test_interrupted_run_has_curves(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 6:
                raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        make_trainer(tmp_path, Stop(), TrainingCurves()).fit(Task(small_cnn()), Digits())
    assert read_figure(tmp_path, "training_curves").std() > 0.01


def test_curves_have_rows_that_the_logger_has_not_flushed(tmp_path: Path, monkeypatch) -> None:
    class LogAtEnd(L.Callback):
        def on_train_end(self, trainer, pl_module):
            trainer.logger.log_metrics({"val/late": 1.0}, step=10)

    seen = {}
    monkeypatch.setattr(
        "callbacks.figures.training_curves.curves_figure", lambda series, *best: seen.update(series)
    )
    make_trainer(tmp_path, LogAtEnd(), TrainingCurves()).fit(Task(small_cnn()), Digits())
    assert seen["val/late"] == {10: 1.0}


def test_run_without_metrics_has_no_curves(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, TrainingCurves(), max_epochs=0)
    trainer.fit(Task(small_cnn()), Digits())
    assert not (tmp_path / "figures").exists()


class Autoencoder(Task):
    """A task without classes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        del self.class_names


@pytest.mark.parametrize("callback", [ConfusionMatrix, Mistakes, ReliabilityDiagram])
def test_task_without_classes_is_reported_before_training(tmp_path: Path, callback) -> None:
    message = f"{callback.__name__} needs a task with `class_names`.*not Autoencoder"
    with pytest.raises(UserError, match=message):
        make_trainer(tmp_path, callback()).fit(Autoencoder(small_cnn()), Digits())


def test_data_with_several_labels_per_sample_are_reported_before_training(tmp_path: Path) -> None:
    data = Digits()
    data.target = "labels"
    with pytest.raises(UserError, match=r"one class per sample, not --data.target labels"):
        make_trainer(tmp_path, ConfusionMatrix()).fit(Task(small_cnn()), data)


def test_test_step_without_logits_gives_a_warning(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Task, "test_step", lambda self, batch, batch_idx: None)
    callbacks = [ConfusionMatrix(), Mistakes(), ReliabilityDiagram()]
    with pytest.warns(UserWarning, match="ConfusionMatrix draws nothing: it needs batches"):
        make_trainer(tmp_path, *callbacks).test(Task(small_cnn()), Digits(), verbose=False)
    assert not (tmp_path / "figures").exists()


def run_test(folder: Path, **more) -> None:
    trainer = make_trainer(folder, *all_figures(), use_distributed_sampler=False, **more)
    trainer.test(Task(small_cnn()), Digits(), verbose=False)


@pytest.mark.slow
def test_two_processes_draw_the_figures_of_one(tmp_path: Path) -> None:
    run_test(tmp_path / "one")
    run_test(tmp_path / "two", strategy="ddp_spawn", devices=2)
    for name in ("confusion_matrix", "reliability_diagram", "mistakes", "filters", "feature_maps"):
        one, two = (read_figure(tmp_path / folder, name) for folder in ("one", "two"))
        assert one.shape == two.shape
        # Another order of summation moves edges by less than a pixel.
        assert np.abs(one - two).mean() < 1e-5, name
