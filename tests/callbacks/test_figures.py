"""Figures of a run: files that are not blank, correct values, networks unchanged."""

import copy
import csv
from pathlib import Path

import lightning as L
import matplotlib
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics.functional.classification import multiclass_calibration_error

from callbacks import ConfusionMatrix, FeatureMaps, Mistakes, ReliabilityDiagram, TrainingCurves
from callbacks.figures.feature_maps import convolution_outputs, first_layer
from engine.errors import UserError
from engine.run.figures import publish, render
from modules.nets import CNN
from plotting.confusion_matrix import confusion_figure
from plotting.curves import curves_figure, read_metrics
from plotting.denormalize import denormalize
from plotting.mistakes import Predictions, image_mistakes_figure
from plotting.reliability_diagram import expected_calibration_error

MEAN, STD = 0.3, 0.4


class Digits(L.LightningDataModule):
    """300 of scikit-learn's digits, 8 × 8; two processes get unequal parts of the test set."""

    mean, std = (MEAN,), (STD,)

    def setup(self, stage: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images[:300] / 16, dtype=torch.float32)[:, None]
        self.data = TensorDataset((images - MEAN) / STD, torch.tensor(digits.target[:300]))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200)), 20, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200, 300)), 50)

    def test_dataloader(self) -> DataLoader:
        parts = {1: [range(300)], 2: [range(30), range(30, 300)]}[self.trainer.world_size]
        return DataLoader(Subset(self.data, parts[self.trainer.global_rank]), 50)


class Task(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.class_names = [f"digit {name}" for name in range(10)]

    def _step(self, batch, stage: str) -> dict:
        inputs, targets = batch
        logits = self.net(inputs)
        loss = nn.functional.cross_entropy(logits, targets)
        accuracy = (logits.argmax(1) == targets).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy})
        return {"loss": loss, "logits": logits}

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        return self._step(batch, "val")

    def test_step(self, batch, batch_idx):
        return self._step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def small_cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(64, 10),
    )  # fmt: skip


def make_trainer(folder: Path, *callbacks: L.Callback, **more) -> L.Trainer:
    settings = {
        "logger": CSVLogger(folder, name="", version=""),
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return L.Trainer(callbacks=list(callbacks), **(settings | more))


def all_figures() -> list[L.Callback]:
    return [ConfusionMatrix(), ReliabilityDiagram(), Mistakes(2, 3), FeatureMaps()]


def read_figure(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB")) / 255


def texts(figure: Figure) -> list[str]:
    everything = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in everything if artist.get_text()]


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


def test_tensorboard_gets_the_same_figure(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    loggers = [CSVLogger(tmp_path, name="", version=""), TensorBoardLogger(tmp_path, "tensorboard")]
    trainer = make_trainer(tmp_path, ConfusionMatrix(), logger=loggers)
    trainer.test(Task(small_cnn()), Digits(), verbose=False)
    events = event_accumulator.EventAccumulator(loggers[1].log_dir).Reload()
    (event,) = events.Images("figures/confusion_matrix")
    (tmp_path / "figures" / "seen.png").write_bytes(event.encoded_image_string)
    np.testing.assert_array_equal(
        read_figure(tmp_path, "seen"), read_figure(tmp_path, "confusion_matrix")
    )


def test_figures_do_not_change_matplotlib_state(tmp_path: Path) -> None:
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    publish(make_trainer(tmp_path), "empty", Figure)
    assert (tmp_path / "figures" / "empty.png").exists()
    assert not pyplot.get_fignums()
    assert dict(matplotlib.rcParams) == before


def test_confusion_matrix_has_true_classes_as_rows(tmp_path: Path) -> None:
    callback, task, data = ConfusionMatrix(), Task(small_cnn()), Digits()
    make_trainer(tmp_path, callback).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    expected = torch.zeros(10, 10, dtype=torch.long)
    for true, predicted in zip(targets, task.eval().net(inputs).argmax(1), strict=True):
        expected[true, predicted] += 1
    assert torch.equal(callback.counts, expected)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_confusion_matrix_shows_counts_only_if_readable(classes: int) -> None:
    counts = np.full((classes, classes), 1234)
    figure = confusion_figure(counts, [f"class {index}" for index in range(classes)])
    assert ("1234" in texts(figure)) == (classes < 100)
    assert f"class {classes - 1}" in texts(figure)
    assert any(text.startswith(f"Accuracy {1 / classes:.2%}") for text in texts(figure))


def test_one_error_in_ten_thousand_is_visible() -> None:
    counts = np.diag([10_000] * 3)
    counts[0, 2] = 1
    colors = confusion_figure(counts, list("abc")).axes[0].images[0].get_array()
    assert colors[0, 2, :3].min() < 0.9  # colored
    assert colors[0, 1, :3].min() == 1  # white


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


def make_predictions(*triples: tuple[int, int, float]) -> Predictions:
    targets, predicted, confidences = (
        torch.tensor(column) for column in zip(*triples, strict=True)
    )
    images = torch.arange(len(triples)).float().view(-1, 1, 1, 1)
    return Predictions(images, targets, predicted, confidences, torch.arange(len(triples)))


def test_most_confident_errors_come_first_then_the_least_confident_correct_predictions() -> None:
    triples = (0, 0, 0.99), (1, 2, 0.6), (1, 1, 0.4), (2, 0, 0.9), (3, 3, 0.7)
    predictions = make_predictions(*triples)
    assert predictions.most_confident_errors(4).rows.tolist() == [3, 1, 2, 4]
    halves = [Predictions(*(v[part] for v in predictions)) for part in (slice(2), slice(2, None))]
    merged = Predictions.concatenate([half.most_confident_errors(4) for half in halves])
    assert merged.most_confident_errors(4).rows.tolist() == [3, 1, 2, 4]


def test_mistakes_have_another_color_than_correct_predictions() -> None:
    predictions = make_predictions((1, 2, 0.9), (1, 1, 0.4))
    images = np.zeros((2, 8, 8, 1))
    figure = image_mistakes_figure(images, predictions, list("abc"), 2, total=50, errors=1)
    (axes,) = figure.axes
    wrong, correct = axes.texts
    assert wrong.get_text() == "predicted c (90%)\ntrue b"
    assert correct.get_text() == "predicted b (40%)\ncorrect"
    assert wrong.get_color() != correct.get_color()
    heading = "The only error in 50 samples; blue: least confident correct predictions"
    assert figure.get_suptitle() == heading


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


def test_denormalize_uses_the_statistics_of_each_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    data = Digits()
    data.mean, data.std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.datamodule = data
    normalized = (images - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(
        3, 1, 1
    )
    np.testing.assert_allclose(
        denormalize(normalized, trainer), images.permute(0, 2, 3, 1), atol=1e-6
    )


def test_feature_maps_do_not_change_network_and_random_state() -> None:
    class Noisy(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs + torch.rand(()))

    net = Noisy(*small_cnn()).train()
    net[5].eval()  # must stay in eval mode
    inputs = torch.rand(1, 1, 8, 8)
    weights, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    maps = convolution_outputs(net, inputs)
    assert torch.equal(random, torch.get_rng_state())
    assert [tuple(values.shape) for values in maps.values()] == [(6, 6, 6), (4, 4, 4)]
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert not any(module._forward_hooks for module in net.modules())


def test_feature_maps_of_a_compiled_network() -> None:
    net, inputs = small_cnn().eval(), torch.rand(1, 1, 8, 8)
    expected = net[:4](inputs)[0]
    net.compile(backend="eager")
    with torch.inference_mode():
        net(inputs)  # compiles a graph without hooks
    maps = convolution_outputs(net, inputs)
    assert torch.equal(maps["3"], expected)


def test_filters_without_convolution_are_the_first_linear_layer_over_the_image() -> None:
    net = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 5))
    name, filters = first_layer(net, torch.zeros(1, 8, 8))
    assert name == "1"
    assert torch.equal(filters.flatten(1), net[1].weight)
    assert filters.shape == (5, 1, 8, 8)


def test_network_without_filters_gives_a_warning_and_no_figure(tmp_path: Path) -> None:
    net = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    with pytest.warns(UserWarning, match="Sequential has neither an nn.Conv2d nor an nn.Linear"):
        make_trainer(tmp_path, FeatureMaps()).test(Task(net), Digits(), verbose=False)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("callback", [Mistakes, FeatureMaps])
def test_inputs_other_than_images_give_a_warning_and_no_figure(tmp_path: Path, callback) -> None:
    words = DataLoader(TensorDataset(torch.randint(9, (20, 6)), torch.randint(10, (20,))), 5)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 10))
    with pytest.warns(UserWarning, match=f"{callback.__name__} draws nothing"):
        make_trainer(tmp_path, callback()).test(Task(net), words, verbose=False)
    assert not (tmp_path / "figures").exists()


def test_curves_have_every_metric_and_mark_the_best_validation(tmp_path: Path) -> None:
    columns = ["step", "epoch", "train/loss", "val/loss", "val/accuracy", "lr-AdamW"]
    rows = [[0, 0, 2.0, "", "", 0.1], [9, 0, 1.0, "", "", 0.1], [9, 0, "", 1.2, 0.5, ""]]
    rows += [[19, 1, "", 0.8, 0.7, ""], [29, 2, "", 0.9, 0.8, ""], [29, 2, "nan", 1.0, 0.6, ""]]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    series = read_metrics(tmp_path / "metrics.csv")
    assert series["train/loss"] == {0: 2.0, 9: 1.0}  # not finite: omitted
    assert series["val/loss"] == {9: 1.2, 19: 0.8, 29: 1.0}  # logged twice: the later row
    figure = curves_figure(series, "val/loss", "min")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    assert "Best val/loss 0.8 at step 20" in texts(figure)  # as the console counts
    assert "Best val/accuracy 0.7 at step 20" in texts(curves_figure(series, "val/accuracy", "max"))
    assert "best: 0.8" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_curves_have_metrics_that_own_tasks_name_otherwise() -> None:
    names = ("train_loss", "val_loss", "val_top_5", "quality", "epoch", "gradients/norm", "lr-Adam")
    figure = curves_figure({name: {0: 1.0, 9: 2.0} for name in names}, "val_loss", "min")
    assert [a.get_title() for a in figure.axes] == ["loss", "quality", "top_5", "learning rate"]
    assert [line.get_label() for line in figure.axes[0].lines] == ["train", "val", "best: 1"]


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


def figure_of(text: str) -> Figure:
    figure = Figure()
    figure.text(0, 0, text)
    return figure


def test_characters_that_the_default_font_lacks_are_drawn_in_an_installed_one(monkeypatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr("engine.run.figures._fonts_with", lambda missing: [f"font of {missing}"])

    def draw() -> Figure:
        drawn.append(matplotlib.rcParams["font.family"])
        return figure_of("cat 猫")

    render(draw)
    assert drawn == [["DejaVu Sans"], ["DejaVu Sans", "font of {'猫'}"]]


def test_characters_that_no_font_has_are_reported(recwarn) -> None:
    render(lambda: figure_of("\U0010fffd"))  # a private-use character
    assert [str(w.message) for w in recwarn if "no installed font has" in str(w.message)]
    assert not [w for w in recwarn if str(w.message).startswith("Glyph")]


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


def test_feature_maps_are_those_before_an_in_place_relu() -> None:
    maps = convolution_outputs(CNN(channels=(4,), image_size=8, padding=1), torch.randn(1, 1, 8, 8))
    assert all((values < 0).any() for values in maps.values())
