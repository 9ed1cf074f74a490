"""Classifier: loss, accumulation, memory format, compilation, classification of raw inputs."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassCohenKappa

from datamodules import Digits
from engine.errors import UserError
from modules import Classifier
from modules.classifier import balanced_weights
from modules.nets import CNN, MLP
from tests.support import QUIET


def training_step(task: Classifier, batch: tuple, log_every_n_steps: int = 50) -> tuple:
    """Return the loss and the logged metrics."""
    logged: dict[str, float] = {}
    task._trainer = L.Trainer(log_every_n_steps=log_every_n_steps, accelerator="cpu", **QUIET)
    task.log = lambda name, value, **options: logged.update({name: float(value)})
    return task.training_step(batch, 0), logged


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_can_be_probabilities(smoothing: float) -> None:
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).softmax(dim=1)
    task = Classifier(nn.Identity(), 4, label_smoothing=smoothing)
    loss, logged = training_step(task, (logits, targets), log_every_n_steps=1)
    smooth = (1 - smoothing) * targets + smoothing / 4
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1).mean()  # -Σ p ln q
    torch.testing.assert_close(loss, expected)
    correct = logits.argmax(dim=1) == targets.argmax(dim=1)
    assert logged["train/accuracy"] == pytest.approx(correct.float().mean().item())


def test_one_hot_probabilities_equal_labels() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    task = Classifier(nn.Identity(), 4)
    from_labels, from_one_hot = (
        training_step(task, (logits, targets), log_every_n_steps=1)
        for targets in (labels, F.one_hot(labels, 4).float())
    )
    torch.testing.assert_close(from_labels[0], from_one_hot[0])
    assert from_labels[1] == pytest.approx(from_one_hot[1])


def is_channels_last(net: nn.Module) -> bool:
    filters = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)


def test_weights_and_features_are_channels_last(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, images = CNN(image_size=8, channels=[4, 6], padding=1).eval(), torch.randn(3, 1, 8, 8)
    before, was_channels_last = net(images), is_channels_last(net)
    task = Classifier(net)
    assert (was_channels_last, is_channels_last(task.net)) == (False, True)
    assert task.net.features(images).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(task(images), before)


def test_training_and_checkpoints_keep_channels_last(tmp_path: Path) -> None:
    task = Classifier(CNN(image_size=8, channels=[4, 6], padding=1, batch_norm=True))
    batches = [(torch.randn(8, 1, 8, 8), torch.randint(10, (8,))) for _ in range(3)]
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    for module in (task, loaded):
        assert is_channels_last(module.net)
    for name, tensor in task.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def fit_of_cnn(compiled: bool) -> tuple[Classifier, dict[str, float]]:
    """Train on batches of eight, validate on batches of other sizes; return the logged metrics."""
    torch.manual_seed(0)
    net = CNN(image_size=8, channels=[4, 6], padding=1, batch_norm=True, dropout=0.0)
    task = Classifier(net, compile=compiled)
    train, val = (
        [(torch.randn(rows, 1, 8, 8), torch.randint(10, (rows,))) for rows in sizes]
        for sizes in ((8, 8, 8), (5, 3, 2))
    )
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", **QUIET)
    loaders = (DataLoader(batches, batch_size=None) for batches in (train, val))
    trainer.fit(task, *loaders)
    return task, {name: float(value) for name, value in trainer.logged_metrics.items()}


def test_only_training_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, expected = fit_of_cnn(compiled=False)
    graphs = []
    compile_module = nn.Module.compile
    backend = lambda graph, inputs: graphs.append(graph) or graph.forward  # noqa: E731
    monkeypatch.setattr(nn.Module, "compile", lambda net: compile_module(net, backend=backend))
    task, metrics = fit_of_cnn(compiled=True)
    task.eval()(torch.rand(7, 1, 8, 8))
    assert len(graphs) == 1  # evaluation with other batch sizes does not recompile
    assert metrics == pytest.approx(expected)
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], tensor)


def test_without_a_compiler_training_is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(UserWarning, match=r"found no C\+\+ compiler"):
        task, _ = fit_of_cnn(compiled=True)
    assert task.net._compiled_call_impl is None


def test_class_weights_apply_to_the_training_loss_only() -> None:
    logits, targets = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 2, 2])
    weights = [1.0, 5.0, 0.5]
    task = Classifier(nn.Identity(), 3, class_weights=weights)
    weighted = F.cross_entropy(logits, targets, torch.tensor(weights))
    assert training_step(task, (logits, targets))[0] == weighted
    assert task.loss(logits, targets, "val") == F.cross_entropy(logits, targets)
    with pytest.raises(UserError, match="2 values for 3 classes"):
        Classifier(nn.Identity(), 3, class_weights=[1.0, 2.0])


def test_balanced_class_weights_are_the_inverse_frequencies() -> None:
    weights = balanced_weights(SimpleNamespace(class_counts=[6, 3, 1]))
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    assert weights.tolist() == pytest.approx(
        compute_class_weight("balanced", classes=np.arange(3), y=labels)
    )
    with pytest.raises(UserError, match="class 1 has none"):
        balanced_weights(SimpleNamespace(class_counts=[6, 0]))
    with pytest.raises(UserError, match="needs data with `class_counts`"):
        balanced_weights(None)


def test_balanced_class_weights_come_from_the_data() -> None:
    task, data = Classifier(MLP(image_size=8), class_weights="balanced"), Digits()
    L.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", **QUIET).fit(task, data)
    assert task.class_weights.tolist() == balanced_weights(data).tolist()
    assert "class_weights" not in task.state_dict()


def test_metrics_of_the_user_are_logged_for_val_and_test() -> None:
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(40, 3), torch.randint(3, (40,))), batch_size=16)
    task = Classifier(nn.Identity(), 3, metrics={"kappa": MulticlassCohenKappa(num_classes=3)})
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    (val,) = trainer.validate(task, data, verbose=False)
    (test,) = trainer.test(task, data, verbose=False)
    kappa = MulticlassCohenKappa(num_classes=3)(*data.dataset.tensors).item()
    assert val["val/kappa"] == test["test/kappa"] == pytest.approx(kappa)


@pytest.mark.parametrize("accumulate", [3, 100])
def test_gradient_of_a_short_accumulation_is_divided_by_its_batches(accumulate: int) -> None:
    """Four batches: one step of three and one of one, or a single step of four."""
    x, y = torch.randn(4, 2, 1, 8, 8), torch.randint(10, (4, 2))

    def weights_after(batches: DataLoader, **options) -> torch.Tensor:
        torch.manual_seed(0)
        net = MLP(image_size=8, hidden_sizes=[])
        task = Classifier(net, optimizer=partial(torch.optim.SGD, lr=1.0))
        L.Trainer(max_epochs=1, accelerator="cpu", **QUIET | options).fit(task, batches)
        return nn.utils.parameters_to_vector(task.parameters()).detach()

    small = DataLoader(list(zip(x, y, strict=True)), batch_size=None)
    steps = [3, 1] if accumulate == 3 else [4]
    large = [(a.flatten(0, 1), b.flatten()) for a, b in zip(x.split(steps), y.split(steps))]  # noqa: B905
    accumulated = weights_after(small, accumulate_grad_batches=accumulate)
    torch.testing.assert_close(accumulated, weights_after(DataLoader(large, batch_size=None)))


def bright_or_dark() -> Classifier:
    """Return a classifier of images of one pixel."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 3, bias=False))
    net[1].weight.data = torch.tensor([[-1.0], [0.0], [1.0]])
    preprocessing = {"in_channels": 1, "image_size": 1, "mean": [0.5], "std": [0.5]}
    return Classifier(net, 3, class_names=["dark", "gray", "bright"], preprocessing=preprocessing)


def test_classify_takes_paths_images_and_tensors(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 4), 255, dtype=np.uint8))
    image.save(tmp_path / "a.png")
    task = bright_or_dark()
    tensor = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    for samples in (str(tmp_path / "a.png"), tmp_path / "a.png", image, tensor, tensor[None]):
        ((name, p),) = task.classify(samples)
        assert (name, p) == ("bright", pytest.approx(0.665, abs=1e-3))
    assert len(task.classify([tmp_path / "a.png", image, tensor])) == 3


def test_top_k_returns_classes_in_descending_order() -> None:
    task, white = bright_or_dark(), torch.ones(1, 1, 1)
    (ranked,) = task.classify(white, top_k=2)
    assert [name for name, _ in ranked] == ["bright", "gray"]
    (ranked,) = task.classify(white, top_k=99)
    assert sum(p for _, p in ranked) == pytest.approx(1)
    assert task.probabilities(white).shape == (1, 3)


def test_wrong_kind_of_sample_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    for samples, message in (
        (3.5, "float"),
        ([3.5], "got float"),
        ([], "at least one sample"),
        ("missing.png", "image file not found: missing.png"),
        (tmp_path / "text.png", "as an image"),
    ):
        with pytest.raises(UserError, match=message):
            bright_or_dark().classify(samples)


def test_classify_restores_the_mode_of_frozen_layers() -> None:
    task = bright_or_dark().train()
    task.net[0].eval()
    task.classify(torch.ones(1, 1, 1))
    assert (task.training, task.net[0].training, task.net[1].training) == (True, False, True)
