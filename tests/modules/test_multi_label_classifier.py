"""MultiLabelClassifier: learns several labels per sample and its metrics equal scikit-learn's."""

import lightning as L
import pytest
import sklearn.metrics
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from modules import MultiLabelClassifier
from modules.nets import MLP
from tests.support import QUIET

NAMES = ["bright", "left", "top"]


def images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (B, 1, 8, 8) and whether they are bright, brighter left or at the top."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count, 3), generator=generator).float()
    signs = 2 * labels - 1
    x = 0.3 * torch.randn(count, 1, 8, 8, generator=generator)
    x += signs[:, 0, None, None, None]
    x[..., :4] += signs[:, 1, None, None, None]
    x[..., :4, :] += signs[:, 2, None, None, None]
    return x, labels


def loader(count: int, seed: int) -> DataLoader:
    return DataLoader(TensorDataset(*images(count, seed)), batch_size=32)


def test_learns_independent_labels() -> None:
    torch.manual_seed(0)
    net = MLP(image_size=8, num_classes=3, hidden_sizes=[16])
    task = MultiLabelClassifier(
        net, 3, class_names=NAMES, optimizer=lambda p: torch.optim.Adam(p, lr=0.01)
    )
    trainer = L.Trainer(max_epochs=10, accelerator="cpu", **QUIET)
    trainer.fit(task, loader(256, 0), loader(64, 1))
    assert trainer.logged_metrics["val/exact_match"] > 0.9
    assert trainer.logged_metrics["val/loss"] < 0.3  # ln 2 = 0.69 without information


def test_metrics_equal_scikit_learn() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 3), torch.randint(2, (50, 3)).float()
    task = MultiLabelClassifier(nn.Identity(), 3)
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    data = DataLoader(TensorDataset(logits, targets), batch_size=16)
    (metrics,) = trainer.test(task, data, verbose=False)
    predicted, probabilities = (logits > 0).numpy(), logits.sigmoid().numpy()
    expected = {
        "test/accuracy": (predicted == targets.numpy()).mean(),
        "test/exact_match": sklearn.metrics.accuracy_score(targets, predicted),
        "test/f1": sklearn.metrics.f1_score(targets, predicted, average="macro"),
        "test/auroc": sklearn.metrics.roc_auc_score(targets, probabilities, average="macro"),
        "test/map": sklearn.metrics.average_precision_score(targets, probabilities),
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-5)


def test_classify_returns_labels_above_the_threshold() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 3, bias=False))
    net[1].weight.data = torch.tensor([[2.0], [-2.0], [1.0]])
    preprocessing = {"in_channels": 1, "image_size": 1, "mean": [0.0], "std": [1.0]}
    task = MultiLabelClassifier(net, 3, class_names=NAMES, preprocessing=preprocessing)
    (labels,) = task.classify(torch.ones(1, 1, 1, 1))
    assert [name for name, _ in labels] == ["bright", "top"]
    assert [len(pairs) for pairs in task.classify(torch.ones(2, 1, 1, 1), top_k=3)] == [3, 3]
    assert task.classify(torch.ones(1, 1, 1, 1), threshold=0.99) == [[]]


def test_class_weights_scale_positive_targets() -> None:
    task = MultiLabelClassifier(nn.Identity(), 2, class_weights=[1.0, 3.0])
    logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    assert task.loss(logits, targets, "train") == pytest.approx(2 * 0.6931, abs=1e-3)
    assert task.loss(logits, targets, "val") == pytest.approx(0.6931, abs=1e-3)
