"""Which checkpoint is the best, and what it holds."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torchmetrics import MeanSquaredError, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from engine.checkpoint.writing import metric_mode
from tests.support import TINY
from tests.support.metrics import metrics
from tests.support.resume import Crash, assert_same_run

Run = Callable[..., Path]
LIGHTNINGS_OWN = (  # a checkpoint callback that comes before that of the run
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.every_n_train_steps=5",
)
SMALL = ("fit", "--config", TINY, "--trainer.limit_train_batches", 8, "--trainer.callbacks", "[]")


class TaskWithMetrics(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        metrics = {"quality": MulticlassAccuracy(3), "f1_gap": MeanSquaredError()}
        self.val_metrics = MetricCollection(metrics, prefix="val/")
        self.test_speed = MeanSquaredError()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val/quality", "max"),  # higher_is_better of the metric
        ("val/f1_gap", "min"),  # although its name has "f1"
        ("test/speed", "min"),  # the attribute `test_speed`
        ("val/token_accuracy", "max"),
        ("val_loss", "min"),
        ("val/score_error", None),
        ("val/width", None),
    ],
)
def test_mode_follows_from_the_metric_or_its_name(name: str, mode: str | None) -> None:
    assert metric_mode(name, TaskWithMetrics()) == mode


def test_best_checkpoint_by_accuracy_has_the_highest(run: Run) -> None:
    flags = ("--checkpoint.monitor", "val/accuracy", "--trainer.max_epochs", 4)
    folder = run(*SMALL, *flags, "--test_after_fit", "false")
    accuracies = [value for (name, _), value in metrics(folder).items() if name == "val/accuracy"]
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert best["callbacks"]["Checkpoints"]["best_model_score"] == pytest.approx(max(accuracies))
    assert len(set(accuracies)) > 1


class LogsWidth(L.Callback):
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("val/width", 1.0)


def test_mode_is_demanded_where_the_name_does_not_say_it(refused) -> None:
    flags = (f"--trainer.callbacks+={__name__}.LogsWidth", "--checkpoint.monitor", "val/width")
    assert "Set --checkpoint.mode min or --checkpoint.mode max" in refused(*SMALL, *flags)


def test_results_are_those_of_best_ckpt_beside_another_checkpoint_callback(run: Run) -> None:
    flags = ("--trainer.max_epochs", 3, "--checkpoint.mode", "max")  # best.ckpt is an early one
    one, other = run(*SMALL, *flags), run(*SMALL, *flags, *LIGHTNINGS_OWN)
    losses = []
    for folder in (one, other):
        text = (folder / "results.json").read_text()
        losses.append(text[text.index('"test/loss"') :].split(",")[0])
    assert losses[0] == losses[1]


class StopAfterTwo(EarlyStopping):
    """Request a stop after the second validation, as a loss that no longer improves would."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.current_epoch == 1:
            trainer.should_stop = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pass


def test_resume_keeps_a_stop_that_waits_for_min_epochs(run: Run) -> None:
    arguments = (
        *SMALL,
        *(f"--trainer.callbacks+={__name__}.StopAfterTwo", "--trainer.callbacks.monitor=val/loss"),
        *("--trainer.min_epochs", 4, "--trainer.max_epochs", 6, "--test_after_fit", "false"),
    )
    crash = (
        "--trainer.callbacks+=tests.support.resume.CrashAfter",
        "--trainer.callbacks.batches=20",  # in the third epoch
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, *crash, "--experiment", "resumed")
    resumed = run(*arguments, "--experiment", "resumed", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)
    assert max(int(step) for _, step in metrics(resumed)) == 4 * 8 - 1


def test_refused_resume_writes_nothing(run: Run, refused) -> None:
    folder = run(*SMALL, "--trainer.max_epochs", 2, "--test_after_fit", "false")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "max_epochs" in refused("fit", "--resume", folder, "--trainer.max_epochs", 1)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert run("fit", "--resume", folder) == folder
