"""Image networks overfit one batch, beat the baseline, and cannot predict random labels."""

import math

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules import Digits
from modules import Classifier
from modules.nets import CNN, MLP
from tests.support import QUIET
from tests.support.image_nets import IMAGE_NET_CLASSES, NUM_CLASSES, SMALL_NETS

Batch = tuple[Tensor, Tensor]


SMALL = ("MLP-deep", "CNN-padding", "CNN-batch-norm", "NumpyMLP-batch-norm", "NumpyCNN-small")
DEEP = ("VGG-11", "ResNet-20", "ResNet-20-pre-activation", "ResNet-9-rgb")
TRAINED = (*SMALL, *DEEP)  # at least one network per architecture


def test_every_architecture_is_trained() -> None:
    assert {type(SMALL_NETS[name]()) for name in TRAINED} == set(IMAGE_NET_CLASSES)


@pytest.fixture(params=[*SMALL, *(pytest.param(n, marks=pytest.mark.slow) for n in DEEP)])
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return SMALL_NETS[request.param]()


class Losses(L.Callback):
    """Record the loss of every training step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(outputs["loss"].item())


def train(task: L.LightningModule, batches: list[Batch]) -> list[float]:
    recorder = Losses()
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", callbacks=[recorder], **QUIET)
    trainer.fit(task, DataLoader(batches, batch_size=None))
    return recorder.losses


def noise(net: nn.Module, steps: int, rows: int = 32) -> list[Batch]:
    """Return random images with random labels, new in every step."""
    random = torch.Generator().manual_seed(3)
    shape = (rows, net.in_channels, net.image_size, net.image_size)
    return [
        (
            torch.randn(shape, generator=random),
            torch.randint(NUM_CLASSES, (rows,), generator=random),
        )
        for _ in range(steps)
    ]


def test_every_net_overfits_one_batch(net: nn.Module) -> None:
    (batch,) = noise(net, steps=1, rows=16)
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.005)  # noqa: E731
    task = Classifier(net, NUM_CLASSES, optimizer=optimizer)
    losses = train(task, [batch] * 150)
    assert losses[0] > 1.5
    with torch.no_grad():
        logits = task.eval()(batch[0])  # without dropout
    assert torch.equal(logits.argmax(dim=1), batch[1])
    assert nn.functional.cross_entropy(logits, batch[1]) < 0.1  # random labels, memorized


def test_loss_on_random_labels_is_not_below_the_entropy(net: nn.Module) -> None:
    batches = noise(net, steps=90)
    losses = torch.tensor(train(Classifier(net, NUM_CLASSES), batches)[30:])
    # The expected loss on unseen random labels is at least ln K. Tolerance: four standard errors of
    # the mean over 60 batches, exceeded once in 30,000.
    assert losses.mean() > math.log(NUM_CLASSES) - 4 * losses.std() / math.sqrt(len(losses))
    assert losses.mean() < math.log(NUM_CLASSES) + 0.5  # no divergence


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: MLP(image_size=8, hidden_sizes=[]), 0.80, id="softmax regression"),
        pytest.param(lambda: MLP(image_size=8), 0.80, id="MLP"),
        pytest.param(lambda: CNN(image_size=8, channels=[16, 32], padding=1), 0.80, id="CNN"),
    ],
)
def test_accuracy_on_digits_is_far_above_the_baseline(make, expected: float) -> None:
    torch.manual_seed(0)
    data, task = Digits(batch_size=32), Classifier(make())
    trainer = L.Trainer(max_epochs=5, accelerator="cpu", **QUIET)
    trainer.fit(task, data)
    (metrics,) = trainer.test(task, data, verbose=False)
    _, labels = data.splits["test"]
    baseline = labels.bincount().max().item() / len(labels)  # always the most frequent digit
    assert baseline < 0.15
    assert metrics["test/accuracy"] > expected
