"""Figures of given values: counts, predictions and metrics."""

import csv
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from plotting.confusion_matrix import confusion_figure
from plotting.curves import curves_figure, read_metrics
from plotting.denormalize import denormalize
from plotting.mistakes import Predictions, image_mistakes_figure
from tests.support.figures import Digits, texts


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
