"""Metrics of the classifier equal those of scikit-learn over the full split."""

import lightning as L
import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from modules import Classifier

CLASSES, SIZE = 5, 203  # the last batch of 16 is incomplete


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    """Return mostly correct logits (N, C) and targets (N,) of imbalanced classes."""
    random = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    targets = torch.multinomial(weights, SIZE, replacement=True, generator=random)
    logits = torch.randn(SIZE, CLASSES, generator=random) * 1.5
    return logits + 1.5 * F.one_hot(targets, CLASSES), targets


def evaluate(rows: tuple[Tensor, Tensor], stage: str = "test", **arguments) -> tuple:
    """Return the metrics of a task whose network returns its inputs as logits, and the task."""
    task = Classifier(nn.Identity(), CLASSES, **arguments)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    evaluate = {"test": trainer.test, "val": trainer.validate}[stage]
    (found,) = evaluate(task, DataLoader(TensorDataset(*rows), batch_size=16), verbose=False)
    return found, task


@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_equal_those_of_scikit_learn(rows: tuple[Tensor, Tensor], stage: str) -> None:
    found, _ = evaluate(rows, stage)
    logits, y = rows
    p, predicted = logits.softmax(dim=1).numpy(), logits.argmax(dim=1)
    macro = {"average": "macro"}
    expected = {
        "loss": sklearn.metrics.log_loss(y, p),
        "accuracy": sklearn.metrics.accuracy_score(y, predicted),
        "f1": sklearn.metrics.f1_score(y, predicted, **macro),
        "precision": sklearn.metrics.precision_score(y, predicted, **macro),
        "recall": sklearn.metrics.recall_score(y, predicted, **macro),
        "auroc": sklearn.metrics.roc_auc_score(y, p, multi_class="ovr", **macro),
        "ece": expected_calibration_error(p, y.numpy()),
    }
    # 1e-5: sums over 203 samples in float32 instead of float64
    assert found == pytest.approx({f"{stage}/{k}": v for k, v in expected.items()}, abs=1e-5)


def expected_calibration_error(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Σ |B_m|/n · |accuracy(B_m) - confidence(B_m)| over equal bins (Guo et al. 2017, eq. 3)."""
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    return sum(
        abs(correct[number == m].mean() - confidence[number == m].mean()) * (number == m).mean()
        for m in range(bins)
        if (number == m).any()
    )


def test_second_test_resets_the_metrics(rows: tuple[Tensor, Tensor]) -> None:
    task = Classifier(nn.Identity(), CLASSES)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    logits, targets = rows
    for subset in (rows, (logits[:40], targets[:40])):
        loader = DataLoader(TensorDataset(*subset), batch_size=16)
        (found,) = trainer.test(task, loader, verbose=False)
        correct = subset[0].argmax(dim=1) == subset[1]
        assert found["test/accuracy"] == pytest.approx(correct.float().mean().item())


def test_per_class_metrics_are_named_after_the_classes(rows: tuple[Tensor, Tensor]) -> None:
    names = ["shirt", "shoe", "bag", "T-shirt/top", "coat"]
    found, _ = evaluate(rows, per_class=True, class_names=names)
    kinds = ("precision", "recall", "f1")
    per_class_metrics = {key: value for key, value in found.items() if key.count("/") > 1}
    assert set(per_class_metrics) == {f"test/{kind}/{name}" for kind in kinds for name in names}
    parts = sklearn.metrics.precision_recall_fscore_support(rows[1], rows[0].argmax(dim=1))
    for kind, values in zip(kinds, parts, strict=False):
        for name, value in zip(names, values, strict=True):
            assert per_class_metrics[f"test/{kind}/{name}"] == pytest.approx(value, abs=1e-6)
        assert found[f"test/{kind}"] == pytest.approx(values.mean(), abs=1e-6)


def test_classes_without_names_are_numbered() -> None:
    assert Classifier(nn.Identity(), 3).class_names == ["0", "1", "2"]


def test_label_smoothing_applies_to_the_training_loss_only(rows: tuple[Tensor, Tensor]) -> None:
    plain = F.cross_entropy(*rows).item()
    smooth = F.cross_entropy(*rows, label_smoothing=0.2).item()
    assert abs(plain - smooth) > 0.05
    task = Classifier(nn.Identity(), CLASSES, label_smoothing=0.2)
    task._trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert task.training_step(rows, 0).item() == pytest.approx(smooth)
    for stage in ("val", "test"):
        found, _ = evaluate(rows, stage, label_smoothing=0.2)
        assert found[f"{stage}/loss"] == pytest.approx(plain, abs=1e-5)
