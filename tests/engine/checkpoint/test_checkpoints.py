"""A checkpoint alone rebuilds its task, without a YAML file."""

import functools
from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image
from torch import nn
from torch.optim import SGD

from datamodules import Digits
from engine.errors import UserError
from modules import Classifier
from modules.nets import CNN, MLP
from modules.optim.schedules import WarmupCosine
from tests.support import TINY


class Undescribed(nn.Module):
    """A network that does not store its argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


def save(task: L.LightningModule, path: Path, data: L.LightningDataModule | None = None) -> Path:
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data or Digits())
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(params=["by train.py", "in plain Python"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, nn.Module]:
    """A checkpoint, and a separate network with its weights."""
    net = CNN(image_size=8, channels=[4, 6], hidden_size=16)
    if request.param == "by train.py":
        path = request.getfixturevalue("run")(
            *("fit", "--config", TINY, "--trainer.max_epochs", 1),
            *("--model.net.channels", "[4,6]", "--model.net.hidden_size", 16),
            *("--model.net.padding", 0),
        )
        path = path / "checkpoints/best.ckpt"
    else:
        data = Digits()
        optimizer = functools.partial(SGD, lr=0.05, momentum=0.9)
        schedule = functools.partial(WarmupCosine, warmup_steps=1)
        more = {"class_names": data.class_names, "preprocessing": data.preprocessing}
        task = Classifier(net, 10, optimizer=optimizer, lr_scheduler=schedule, **more)
        path = save(task, tmp_path / "plain.ckpt", data)
    weights = torch.load(path, weights_only=True)["state_dict"]
    net.load_state_dict({k.removeprefix("net."): v for k, v in weights.items() if "net." in k})
    return path, net.eval()


def test_task_is_rebuilt_from_the_path_of_its_checkpoint(saved: tuple[Path, nn.Module]) -> None:
    path, net = saved
    task = Classifier.load_from_checkpoint(path, weights_only=True).eval()
    images = torch.randn(5, 1, 8, 8)
    net.to(
        memory_format=torch.channels_last
    )  # as in the task: the memory format changes the order of sums
    assert torch.equal(task(images), net(images))
    assert task.class_names == Digits.class_names
    assert L.LightningModule.load_from_checkpoint(path, weights_only=True).class_names


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_rebuilt_classifier_classifies_raw_images(saved: tuple[Path, nn.Module], mode: str) -> None:
    path, net = saved
    task = Classifier.load_from_checkpoint(path)
    data = Digits(batch_size=16)
    data.setup("test")
    images, labels = (part[:16] for part in data.splits["test"])
    with torch.no_grad():
        inputs, _ = data.on_after_batch_transfer((images, labels), 0)
        expected = net(inputs).softmax(dim=1).max(dim=1)
    pil = [Image.fromarray(image[0].numpy()).convert(mode) for image in images]
    for given in (images, list(images), pil):
        names, confidences = zip(*task.classify(given), strict=True)
        assert names == tuple(task.class_names[i] for i in expected.indices)
        # 0.01: gray from RGB is a weighted sum rounded to 1/255.
        assert confidences == pytest.approx(expected.values.tolist(), abs=0.01)


def test_images_of_another_size_are_resized(saved: tuple[Path, nn.Module]) -> None:
    task = Classifier.load_from_checkpoint(saved[0])
    data = Digits()
    data.setup("test")
    images = data.splits["test"][0][:8]
    large = images.repeat_interleave(3, dim=-1).repeat_interleave(3, dim=-2)  # 24 x 24
    (name, _), (name_of_large, _) = task.classify(images[:1])[0], task.classify(large[:1])[0]
    assert name in task.class_names
    assert name_of_large in task.class_names
    assert len(task.classify([large[0], images[1]])) == 2


def test_classify_leaves_the_task_in_the_mode_it_was_in(saved: tuple[Path, nn.Module]) -> None:
    task = Classifier.load_from_checkpoint(saved[0])
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    for mode in (True, False):
        task.train(mode)
        task.classify(image)
        assert task.training is mode


def test_a_classifier_that_knows_no_preprocessing_says_so() -> None:
    with pytest.raises(UserError, match="trained without `preprocessing`"):
        Classifier(MLP()).classify(torch.zeros(1, 1, 28, 28))


def test_network_with_unknown_arguments_must_be_passed_again(tmp_path: Path) -> None:
    path = save(Classifier(Undescribed(12)), tmp_path / "undescribed.ckpt")
    again = Classifier.load_from_checkpoint(path, net=Undescribed(12), weights_only=True)
    assert torch.equal(
        again.net.layers[1].weight, torch.load(path)["state_dict"]["net.layers.1.weight"]
    )
    with pytest.raises(TypeError, match="net"):
        Classifier.load_from_checkpoint(path)


def test_arguments_of_a_rebuilt_task_can_be_overridden(saved: tuple[Path, nn.Module]) -> None:
    task = Classifier.load_from_checkpoint(saved[0], label_smoothing=0.3)
    assert task.label_smoothing == 0.3
    assert isinstance(task.net, CNN)


def test_training_continues_from_loaded_checkpoint(
    saved: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    task = Classifier.load_from_checkpoint(saved[0])
    path = save(task, tmp_path / "again.ckpt")
    again = Classifier.load_from_checkpoint(path)
    for name, weight in task.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


def test_checkpoint_stores_the_optimizer_factory(tmp_path: Path) -> None:
    task = Classifier(MLP(image_size=8), optimizer=functools.partial(SGD, lr=0.05))
    again = Classifier.load_from_checkpoint(save(task, tmp_path / "sgd.ckpt"))
    optimizer = again.configure_optimizers()["optimizer"]
    assert type(optimizer) is SGD
    assert optimizer.param_groups[0]["lr"] == 0.05


class TakesNumClasses(nn.Module):
    """A network that takes fewer sizes than the data have."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


def test_network_that_takes_few_of_the_sizes_of_the_data_is_rebuilt(run, tmp_path: Path) -> None:
    config = tmp_path / "little.yaml"
    config.write_text(
        "model: {class_path: modules.Classifier, "
        f"init_args: {{net: {__name__}.TakesNumClasses}}}}\n"
        "data: datamodules.Digits\ntrainer: {max_epochs: 1}\n"
    )
    path = run("fit", "--config", config, "--test_after_fit", "false") / "checkpoints/best.ckpt"
    task = Classifier.load_from_checkpoint(path, weights_only=True)
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(task.net.layers[1].weight, weights["net.layers.1.weight"])
