"""The pictures of a run: files that are pictures, right numbers, nets left alone."""

import copy
import csv
from pathlib import Path

import lightning as L
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
from callbacks.figures.confusion_matrix import confusion_figure
from callbacks.figures.feature_maps import convolution_outputs, first_layer
from callbacks.figures.mistakes import Answers, mistakes_figure
from callbacks.figures.reliability_diagram import expected_calibration_error
from callbacks.figures.training_curves import curves_figure, read_metrics
from engine.run.figures import publish
from modules.nets import CNN
from plotting.denormalize import denormalize

MEAN, STD = 0.3, 0.4


class Digits(L.LightningDataModule):
    """300 of scikit-learn's digits, 8 × 8; several processes share the test set unevenly."""

    mean, std = (MEAN,), (STD,)

    def setup(self, stage: str) -> None:
        digits = load_digits()
        pictures = torch.tensor(digits.images[:300] / 16, dtype=torch.float32)[:, None]
        self.data = TensorDataset((pictures - MEAN) / STD, torch.tensor(digits.target[:300]))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200)), 20, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.data, range(200, 300)), 50)

    def test_dataloader(self) -> DataLoader:
        shares = {1: [range(300)], 2: [range(30), range(30, 300)]}[self.trainer.world_size]
        return DataLoader(Subset(self.data, shares[self.trainer.global_rank]), 50)


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


def all_pictures() -> list[L.Callback]:
    return [ConfusionMatrix(), ReliabilityDiagram(), Mistakes(2, 3), FeatureMaps()]


def read_picture(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "figures" / f"{name}.png").convert("RGB")) / 255


def texts(figure: Figure) -> list[str]:
    everything = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in everything if artist.get_text()]


def test_a_run_leaves_pictures_that_are_not_blank(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, *all_pictures(), TrainingCurves())
    task, data = Task(small_cnn()), Digits()
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert names == {
        "confusion_matrix", "reliability_diagram", "mistakes", "filters", "feature_maps",
        "training_curves",
    }  # fmt: skip
    for name in names:
        picture = read_picture(tmp_path, name)
        assert min(picture.shape[:2]) > 250, name
        assert picture.std() > 0.05, name


def test_without_a_run_folder_no_file_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(tmp_path, *all_pictures(), TrainingCurves(), fast_dev_run=True)
    task, data = Task(small_cnn()), Digits()
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert not list(tmp_path.rglob("*.png"))


def test_tensorboard_receives_the_very_picture_of_the_file(tmp_path: Path) -> None:
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
        read_picture(tmp_path, "seen"), read_picture(tmp_path, "confusion_matrix")
    )


def test_figures_leave_no_trace_in_pyplot_and_matplotlib(tmp_path: Path) -> None:
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    publish(make_trainer(tmp_path), "empty", Figure)
    assert (tmp_path / "figures" / "empty.png").exists()
    assert not pyplot.get_fignums()
    assert dict(matplotlib.rcParams) == before


def test_confusion_counts_are_true_by_row_and_predicted_by_column(tmp_path: Path) -> None:
    callback, task, data = ConfusionMatrix(), Task(small_cnn()), Digits()
    make_trainer(tmp_path, callback).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    expected = torch.zeros(10, 10, dtype=torch.long)
    for true, predicted in zip(targets, task.eval().net(inputs).argmax(1), strict=True):
        expected[true, predicted] += 1
    assert torch.equal(callback.counts, expected)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_confusion_shows_numbers_only_where_they_fit(classes: int) -> None:
    counts = np.full((classes, classes), 1234)
    figure = confusion_figure(counts, [f"class {index}" for index in range(classes)])
    assert ("1234" in texts(figure)) == (classes < 100)
    assert f"class {classes - 1}" in texts(figure)
    assert any(text.startswith(f"Accuracy {1 / classes:.2%}") for text in texts(figure))


def test_one_error_in_ten_thousand_is_visible() -> None:
    counts = np.diag([10_000] * 3)
    counts[0, 2] = 1
    colors = confusion_figure(counts, list("abc")).axes[0].images[0].get_array()
    assert colors[0, 2, :3].min() < 0.9  # a colour
    assert colors[0, 1, :3].min() == 1  # white: no error


def test_calibration_error_equals_torchmetrics(tmp_path: Path) -> None:
    callback, task, data = ReliabilityDiagram(bins=10), Task(small_cnn()), Digits()
    make_trainer(tmp_path, callback).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    probabilities = task.eval().net(inputs).softmax(1)
    theirs = multiclass_calibration_error(probabilities, targets, num_classes=10, n_bins=10)
    ours = expected_calibration_error(*callback.sums.numpy())
    assert ours == pytest.approx(theirs.item(), abs=1e-6)  # float32 sums in another order


def test_calibration_error_equals_torchmetrics_on_the_edges_of_bins() -> None:
    # Confidences 0.5 (wrong) and 0.55 (right), 0.95 (right) and 1 (wrong): gaps of opposite signs,
    # so that the error shows which of them share a bin.
    logits = torch.tensor([[0, 0], [0.2, 0], [3, 0], [3, 0], [200, 0]])
    targets = torch.tensor([1, 0, 0, 0, 1])
    callback, task = ReliabilityDiagram(bins=10), Task(nn.Identity())
    callback.on_test_start(None, task)
    callback.on_test_batch_end(None, task, {"logits": logits}, (None, targets), 0)
    theirs = multiclass_calibration_error(logits.softmax(1), targets, num_classes=2, n_bins=10)
    ours = expected_calibration_error(*callback.sums.numpy())
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


def answers(*triples: tuple[int, int, float]) -> Answers:
    targets, predicted, confidences = (
        torch.tensor(column) for column in zip(*triples, strict=True)
    )
    pictures = torch.arange(len(triples)).float().view(-1, 1, 1, 1)
    return Answers(pictures, targets, predicted, confidences)


def test_worst_mistakes_come_first_then_the_least_sure_right_answers() -> None:
    some = answers((0, 0, 0.99), (1, 2, 0.6), (1, 1, 0.4), (2, 0, 0.9), (3, 3, 0.7))
    assert some.worst(4).samples.flatten().tolist() == [3, 1, 2, 4]
    halves = Answers(*(v[:2] for v in some)), Answers(*(v[2:] for v in some))
    merged = halves[0].worst(4).and_also(halves[1].worst(4)).worst(4)
    assert merged.samples.flatten().tolist() == [3, 1, 2, 4]


def test_mistakes_tell_wrong_from_right_by_colour() -> None:
    some = answers((1, 2, 0.9), (1, 1, 0.4))
    figure = mistakes_figure(np.zeros((2, 8, 8, 1)), some, list("abc"), 2, [50, 1])
    (axes,) = figure.axes
    wrong, right = axes.texts
    assert wrong.get_text() == "said c (90%)\nis b"
    assert right.get_text() == "said b (40%)\nrightly"
    assert wrong.get_color() != right.get_color()


def test_mistakes_show_the_surest_error_of_the_whole_test_set(tmp_path: Path, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "callbacks.figures.mistakes.mistakes_figure",
        lambda pictures, kept, *more: (
            seen.update(pictures=pictures, kept=kept, more=more) or Figure()
        ),
    )
    task, data = Task(small_cnn()), Digits()
    make_trainer(tmp_path, Mistakes(2, 3)).test(task, data, verbose=False)
    inputs, targets = data.data.tensors
    confidences, predicted = task.eval().net(inputs).softmax(1).max(1)
    surest = torch.where(predicted != targets, confidences, 0).argmax()
    np.testing.assert_allclose(
        seen["pictures"][0, :, :, 0], load_digits().images[surest] / 16, atol=1e-6
    )
    assert seen["kept"].predicted[0] == predicted[surest]
    assert len(seen["kept"].predicted) == 6
    assert seen["more"][-1] == [300, int((predicted != targets).sum())]


def test_denormalise_undoes_each_channel() -> None:
    pictures = torch.rand(2, 3, 4, 5)
    data = Digits()
    data.mean, data.std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.datamodule = data
    normalised = (pictures - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(
        3, 1, 1
    )
    np.testing.assert_allclose(
        denormalize(normalised, trainer), pictures.permute(0, 2, 3, 1), atol=1e-6
    )


def test_feature_maps_leave_net_and_random_state_alone() -> None:
    class Noisy(nn.Sequential):
        def forward(self, inputs):
            return super().forward(inputs + torch.rand(()))

    net = Noisy(*small_cnn()).train()
    net[5].eval()  # a layer frozen by hand must stay so
    inputs = torch.rand(1, 1, 8, 8)
    weights, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    maps = convolution_outputs(net, inputs)
    assert torch.equal(random, torch.get_rng_state())
    assert [tuple(values.shape) for values in maps.values()] == [(6, 6, 6), (4, 4, 4)]
    assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert not any(module._forward_hooks for module in net.modules())


def test_feature_maps_are_what_the_layers_give_also_when_compiled() -> None:
    net, inputs = small_cnn().eval(), torch.rand(1, 1, 8, 8)
    expected = net[:4](inputs)[0]
    net.compile(backend="eager")
    with torch.inference_mode():
        net(inputs)  # from here on a graph without hooks is at hand
    maps = convolution_outputs(net, inputs)
    assert torch.equal(maps["3"], expected)


def test_filters_of_a_net_without_convolution_are_its_first_whole_picture_layer() -> None:
    net = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 5))
    name, filters = first_layer(net, torch.zeros(1, 8, 8))
    assert name == "1"
    assert torch.equal(filters.flatten(1), net[1].weight)
    assert filters.shape == (5, 1, 8, 8)


def test_a_net_without_filters_gives_a_warning_and_no_picture(tmp_path: Path) -> None:
    net = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    with pytest.warns(UserWarning, match="Sequential has neither an nn.Conv2d nor an nn.Linear"):
        make_trainer(tmp_path, FeatureMaps()).test(Task(net), Digits(), verbose=False)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("callback", [Mistakes, FeatureMaps])
def test_data_that_are_no_pictures_give_a_warning_and_no_picture(tmp_path: Path, callback) -> None:
    words = DataLoader(TensorDataset(torch.randint(9, (20, 6)), torch.randint(10, (20,))), 5)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 10))
    with pytest.warns(UserWarning, match=f"{callback.__name__} draws nothing"):
        make_trainer(tmp_path, callback()).test(Task(net), words, verbose=False)
    assert not (tmp_path / "figures").exists()


def test_curves_hold_every_metric_and_mark_the_best_validation(tmp_path: Path) -> None:
    columns = ["step", "epoch", "train/loss", "val/loss", "val/accuracy", "lr-AdamW"]
    rows = [[0, 0, 2.0, "", "", 0.1], [9, 0, 1.0, "", "", 0.1], [9, 0, "", 1.2, 0.5, ""]]
    rows += [[19, 1, "", 0.8, 0.7, ""], [29, 2, "", 0.9, 0.8, ""], [29, 2, "nan", 1.0, 0.6, ""]]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    series = read_metrics(tmp_path / "metrics.csv")
    assert series["train/loss"] == {0: 2.0, 9: 1.0}  # not finite: left out
    assert series["val/loss"] == {9: 1.2, 19: 0.8, 29: 1.0}  # logged twice: the later counts
    figure = curves_figure(series, "val/loss", "min")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    assert "Best val/loss 0.8 at step 19" in texts(figure)
    assert "Best val/accuracy 0.7 at step 19" in texts(curves_figure(series, "val/accuracy", "max"))


def test_curves_of_an_interrupted_run_hold_what_was_logged(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 6:
                raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        make_trainer(tmp_path, Stop(), TrainingCurves()).fit(Task(small_cnn()), Digits())
    assert read_picture(tmp_path, "training_curves").std() > 0.01


def test_curves_hold_rows_that_the_logger_has_not_written_yet(tmp_path: Path, monkeypatch) -> None:
    class LogStraight(L.Callback):
        def on_train_end(self, trainer, pl_module):
            trainer.logger.log_metrics({"val/late": 1.0}, step=10)

    seen = {}
    monkeypatch.setattr(
        "callbacks.figures.training_curves.curves_figure", lambda series, *best: seen.update(series)
    )
    make_trainer(tmp_path, LogStraight(), TrainingCurves()).fit(Task(small_cnn()), Digits())
    assert seen["val/late"] == {10: 1.0}


def test_an_empty_run_has_no_curves(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, TrainingCurves(), max_epochs=0)
    trainer.fit(Task(small_cnn()), Digits())
    assert not (tmp_path / "figures").exists()


def run_test(folder: Path, **more) -> None:
    trainer = make_trainer(folder, *all_pictures(), use_distributed_sampler=False, **more)
    trainer.test(Task(small_cnn()), Digits(), verbose=False)


@pytest.mark.slow
def test_two_processes_draw_the_pictures_of_one(tmp_path: Path) -> None:
    run_test(tmp_path / "one")
    run_test(tmp_path / "two", strategy="ddp_spawn", devices=2)
    for name in ("confusion_matrix", "reliability_diagram", "mistakes", "filters", "feature_maps"):
        one, two = (read_picture(tmp_path / folder, name) for folder in ("one", "two"))
        assert one.shape == two.shape
        # Sums in another order move an edge by less than a pixel.
        assert np.abs(one - two).mean() < 1e-5, name


def test_a_feature_map_is_what_the_convolution_gave_though_a_relu_writes_over_it() -> None:
    maps = convolution_outputs(CNN(channels=(4,), image_size=8, padding=1), torch.randn(1, 1, 8, 8))
    assert all((maps_of_layer < 0).any() for maps_of_layer in maps.values())
