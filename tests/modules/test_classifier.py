"""The classifier in training: targets that are probabilities, and filters laid out for speed."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from modules import Classifier
from modules.nets import CNN

TRAINER = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def training_step(task: Classifier, batch: tuple, log_every_n_steps: int = 50) -> tuple:
    """The loss, and what was logged."""
    logged: dict[str, float] = {}
    task._trainer = L.Trainer(log_every_n_steps=log_every_n_steps, accelerator="cpu", **TRAINER)
    task.log = lambda name, value, **options: logged.update({name: float(value)})
    return task.training_step(batch, 0), logged


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_may_be_probabilities(smoothing: float) -> None:
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).softmax(dim=1)
    task = Classifier(nn.Identity(), 4, label_smoothing=smoothing)
    loss, logged = training_step(task, (logits, targets), log_every_n_steps=1)
    smooth = (1 - smoothing) * targets + smoothing / 4
    expected = -(smooth * logits.log_softmax(dim=1)).sum(dim=1).mean()  # -Σ p ln q
    torch.testing.assert_close(loss, expected)
    right = logits.argmax(dim=1) == targets.argmax(dim=1)
    assert logged["train/accuracy"] == pytest.approx(right.float().mean().item())


def test_certain_probabilities_are_plain_labels() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    task = Classifier(nn.Identity(), 4)
    plain, certain = (
        training_step(task, (logits, targets), log_every_n_steps=1)
        for targets in (labels, F.one_hot(labels, 4).float())
    )
    torch.testing.assert_close(plain[0], certain[0])
    assert plain[1] == pytest.approx(certain[1])


def channels_are_innermost(net: nn.Module) -> bool:
    filters = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in filters)


def test_filters_lie_with_channels_innermost_and_so_do_the_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, pictures = CNN(image_size=8, channels=[4, 6], padding=1).eval(), torch.randn(3, 1, 8, 8)
    before, plain = net(pictures), channels_are_innermost(net)
    task = Classifier(net)
    assert (plain, channels_are_innermost(task.net)) == (False, True)
    assert task.net.features(pictures).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(task(pictures), before)  # the same net


def test_training_and_checkpoints_keep_the_layout(tmp_path: Path) -> None:
    task = Classifier(CNN(image_size=8, channels=[4, 6], padding=1, batch_norm=True))
    batches = [(torch.randn(8, 1, 8, 8), torch.randint(10, (8,))) for _ in range(3)]
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **TRAINER)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "some.ckpt", weights_only=True)
    for made in (task, again):
        assert channels_are_innermost(made.net)
    for name, tensor in task.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def fit_of_cnn(compiled: bool) -> tuple[Classifier, dict[str, float]]:
    """Eight rows a training batch, and any number to validate; what was logged last."""
    torch.manual_seed(0)
    net = CNN(image_size=8, channels=[4, 6], padding=1, batch_norm=True, dropout=0.0)
    task = Classifier(net, compile=compiled)
    train, val = (
        [(torch.randn(rows, 1, 8, 8), torch.randint(10, (rows,))) for rows in sizes]
        for sizes in ((8, 8, 8), (5, 3, 2))
    )
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **TRAINER)
    loaders = (DataLoader(batches, batch_size=None) for batches in (train, val))
    trainer.fit(task, *loaders)
    return task, {name: float(value) for name, value in trainer.logged_metrics.items()}


def test_a_net_is_compiled_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, expected = fit_of_cnn(compiled=False)
    graphs = []
    compile_by = nn.Module.compile
    backend = lambda graph, inputs: graphs.append(graph) or graph.forward  # noqa: E731
    monkeypatch.setattr(nn.Module, "compile", lambda net: compile_by(net, backend=backend))
    task, seen = fit_of_cnn(compiled=True)
    task.eval()(torch.rand(7, 1, 8, 8))
    assert len(graphs) == 1  # of one shape, whatever the sizes of other batches
    assert seen == pytest.approx(expected)
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], tensor)


def test_without_a_compiler_the_net_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(UserWarning, match=r"found no C\+\+ compiler"):
        task, _ = fit_of_cnn(compiled=True)
    assert task.net._compiled_call_impl is None
