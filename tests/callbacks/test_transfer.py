"""Transfer learning: torchvision networks with a new head, and a backbone frozen at first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from callbacks import BackboneFinetuning
from modules import Classifier
from modules.nets import TorchvisionNet
from tests.support import REAL_DIR, ROOT
from tests.support.synthetic_data import make_image_folder

CONFIG = ROOT / "configs/hymenoptera/squeezenet.yaml"
FAMILIES = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18"),
    *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vgg11_bn"),
    *("vit_b_32", "wide_resnet50_2"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, and weights of networks with 1,000 classes."""
    folder = tmp_path_factory.mktemp("data")
    make_image_folder(folder / "insects", {"train": 8, "val": 4, "test": 2}, side=40)
    torch.manual_seed(7)
    torch.save(models.squeezenet1_1().state_dict(), folder / "squeezenet.pth")
    net = models.shufflenet_v2_x0_5()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0  # statistics of noise, so that activations do not vanish
    with torch.no_grad():
        net(torch.randn(64, 3, 33, 33))
    torch.save(net.state_dict(), folder / "shufflenet.pth")
    return folder


def small(data_dir: Path, net: str = "squeezenet1_1", weights: str = "squeezenet.pth") -> tuple:
    return (
        *("fit", "--config", CONFIG, "--data.data_dir", data_dir, "--data.folder", "insects"),
        *("--model.net.name", net, "--model.net.pretrained", weights),
        *("--data.image_size", 33, "--data.shorter_side", 40, "--data.batch_size", 4),
        *("--data.augmentation", "torchvision.transforms.v2.RandomResizedCrop"),
        *("--data.augmentation.size", 33, "--trainer.precision", "32-true"),
        *("--trainer.log_every_n_steps", 1, "--trainer.callbacks", "null"),
        *("--trainer.max_epochs", 4, "--test_after_fit", "false"),
    )


FINETUNING = (
    *("--trainer.callbacks+", "callbacks.BackboneFinetuning"),
    *("--trainer.callbacks.unfreeze_at_epoch", 1, "--trainer.callbacks.growth", 2),
)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_only_the_head_depends_on_the_number_of_classes(name: str) -> None:
    ours, other = TorchvisionNet(name, 7), TorchvisionNet(name, 8)
    changed = {
        key.rpartition(".")[0]
        for key, weight in ours.model.state_dict().items()
        if weight.shape != other.model.state_dict()[key].shape
    }
    assert [dict(ours.model.named_modules())[key] for key in changed] == [ours.head]
    parts = [*ours.backbone.parameters(), *ours.head.parameters()]
    assert len(parts) == len({*parts}) == len([*ours.parameters()])


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_pretrained_weights_are_loaded_into_all_but_the_head(name: str, data_dir: Path) -> None:
    file = f"{name.partition('_')[0].removesuffix('1')}.pth"
    theirs = models.get_model(name)
    theirs.load_state_dict(torch.load(data_dir / file))
    ours = TorchvisionNet(name, 5, pretrained=file, data_dir=str(data_dir)).eval()
    same = TorchvisionNet(name, 1000, pretrained=str(data_dir / file)).eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(same(images), theirs.eval()(images))
    assert ours(images).shape == (2, 5)
    backbone = dict(ours.model.named_parameters())
    fitting = {n: w for n, w in theirs.named_parameters() if w.shape == backbone[n].shape}
    assert len(backbone) - len(fitting) == 2
    assert all(torch.equal(weight, backbone[n]) for n, weight in fitting.items())


def test_weights_are_downloaded_by_torchvision(data_dir: Path, monkeypatch) -> None:
    weights = torch.load(data_dir / "squeezenet.pth")
    asked = []

    def load(url: str, **_: Any) -> dict:
        asked.append(url)
        return weights

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    net = TorchvisionNet("squeezenet1_1", 3, pretrained=True)
    assert "download.pytorch.org/models/squeezenet1_1" in asked[0]
    assert torch.equal(net.model.features[0].weight, weights["features.0.weight"])


def test_old_parameter_names_of_densenet_are_converted(tmp_path: Path) -> None:
    saved = models.densenet121().state_dict()
    old = {n.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): w for n, w in saved.items()}
    torch.save(old, tmp_path / "densenet.pth")
    net = TorchvisionNet("densenet121", 3, pretrained=str(tmp_path / "densenet.pth"))
    first = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(net.model.state_dict()[first], saved[first])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "squeezenet"}, "did you mean squeezenet1_1 or squeezenet1_0?"),
        ({"name": "gpt"}, "known: alexnet, "),
        ({"pretrained": "nowhere.pth"}, "no pretrained weights nowhere.pth"),
        (
            {"pretrained": "shufflenet.pth"},
            "does not fit squeezenet1_1: features.0.weight has shape",
        ),
        ({"pretrained": "text.pth"}, "is not a weights file"),
        ({"pretrained": "list.pth"}, "is not a state_dict"),
        ({"pretrained": True}, r"could not download .*squeezenet1_1-b8a52dc0.pth"),
        ({"in_channels": 2}, "in_channels must be 1 or 3"),
    ],
)
def test_invalid_arguments_are_reported(arguments: dict, message: str, data_dir: Path) -> None:
    (data_dir / "text.pth").write_text("weights")
    torch.save([1, 2], data_dir / "list.pth")
    with pytest.raises(ValueError, match=message):
        TorchvisionNet(**{"name": "squeezenet1_1", "data_dir": str(data_dir), **arguments})


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Record weights and parameter groups at the end of each training epoch."""
    seen: list[dict] = []

    def record(self: Any, trainer: L.Trainer, pl_module: Any) -> None:
        (optimizer,) = trainer.optimizers
        weights = {n: w.detach().clone() for n, w in pl_module.net.model.state_dict().items()}
        groups = [{**group, "params": len(group["params"])} for group in optimizer.param_groups]
        seen.append({"weights": weights, "groups": groups, "head_groups": dict(self.head_groups)})

    monkeypatch.setattr(BackboneFinetuning, "on_train_epoch_end", record, raising=False)
    return seen


def test_backbone_is_frozen_then_trained_at_a_fraction_of_the_learning_rate(
    run: Callable[..., Path], data_dir: Path, epochs: list[dict]
) -> None:
    run(*small(data_dir, "shufflenet_v2_x0_5", "shufflenet.pth"), *FINETUNING)
    pretrained = torch.load(data_dir / "shufflenet.pth")
    moved = [
        {n for n, w in epoch["weights"].items() if w.shape == pretrained[n].shape}
        & {n for n, w in epoch["weights"].items() if not torch.equal(w, pretrained[n])}
        if i == 0
        else {n for n, w in epoch["weights"].items() if not torch.equal(w, before["weights"][n])}
        for i, (epoch, before) in enumerate(zip(epochs, [{}, *epochs], strict=False))
    ]
    assert moved[0] == set()  # nothing but the head, including the statistics of norms
    assert {"fc.weight", "fc.bias", "conv1.0.weight"} <= moved[1]
    norms = {n.rpartition(".")[0] for n in pretrained if n.endswith("running_mean")}
    assert not any(name.rpartition(".")[0] in norms for name in moved[3])
    # The head follows a cosine from 0.001; the backbone has 0.1, 0.2 and 0.4 times its rate.
    assert [len(epoch["groups"]) for epoch in epochs] == [2, 3, 3, 3]
    for epoch, share in zip(epochs[1:], (0.1, 0.2, 0.4), strict=True):
        head, _, backbone = (group["lr"] for group in epoch["groups"])
        assert backbone == pytest.approx(share * head)
        assert 0 <= head < 0.001
    assert epochs[1]["groups"][2]["lr"] > 1e-5


def test_train_norms_trains_norms_without_weight_decay(
    run: Callable[..., Path], data_dir: Path, epochs: list[dict]
) -> None:
    norms = ("--trainer.callbacks.train_norms", "true")
    run(*small(data_dir, "shufflenet_v2_x0_5", "shufflenet.pth"), *FINETUNING, *norms)
    first, last = epochs[0]["weights"], epochs[-1]["weights"]
    assert not torch.equal(first["conv1.1.running_mean"], last["conv1.1.running_mean"])
    assert not torch.equal(first["conv1.1.weight"], last["conv1.1.weight"])
    decays = [group["weight_decay"] for group in epochs[-1]["groups"]]
    assert decays == [0.01, 0.0, 0.01, 0.0]
    assert epochs[-1]["head_groups"] == {2: 0, 3: 1}
    net = models.shufflenet_v2_x0_5(num_classes=2)
    vectors = sum(parameter.ndim < 2 for parameter in net.parameters())
    assert [group["params"] for group in epochs[-1]["groups"]][1::2] == [1, vectors - 1]


SCHEDULES: dict[str, tuple] = {
    "none": ("--model.lr_scheduler", "null"),
    "OneCycle": ("--model.lr_scheduler", "modules.optim.OneCycle"),
    "step": (
        *("--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"),
        *("--model.lr_scheduler.step_size", 1),
    ),
    "plateau": (
        *("--model.lr_scheduler", "lightning.pytorch.cli.ReduceLROnPlateau"),
        *("--model.lr_scheduler.monitor", "val/loss", "--model.lr_scheduler.patience", 0),
        *("--model.lr_scheduler.threshold", 0.9),
    ),
    "lambda": (
        *("--model.lr_scheduler", "torch.optim.lr_scheduler.LambdaLR"),
        *("--model.lr_scheduler.lr_lambda", f"{__name__}.halve"),
    ),
}


def halve(epoch: int) -> float:
    return 0.5**epoch


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_backbone_follows_every_schedule(
    run: Callable[..., Path], data_dir: Path, epochs: list[dict], schedule: str
) -> None:
    sgd = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.01)
    few = ("--trainer.limit_train_batches", 2, "--trainer.callbacks.growth", 1)
    run(*small(data_dir), *sgd, *SCHEDULES[schedule], *FINETUNING, *few)
    rates = [[group["lr"] for group in epoch["groups"]] for epoch in epochs[1:]]
    for head, backbone in rates:
        assert backbone == pytest.approx(0.1 * head)
    assert (rates[0][0] == rates[-1][0]) == (schedule == "none")


def test_network_without_backbone_is_reported(refused) -> None:
    tiny = ROOT / "tests/configs/digits/tiny.yaml"
    message = refused("fit", "--config", tiny, *FINETUNING)
    assert "BackboneFinetuning needs a network with a `backbone`" in message


@pytest.mark.parametrize("wrong", [{"ratio": 0}, {"growth": 0.5}, {"unfreeze_at_epoch": -1}])
def test_numbers_out_of_range_are_reported(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BackboneFinetuning(**wrong)


def test_checkpoint_alone_classifies_a_raw_image(
    run: Callable[..., Path], data_dir: Path, tmp_path: Path, monkeypatch
) -> None:
    folder = run(*small(data_dir), "--trainer.max_epochs", 1)
    path = folder / "checkpoints/best.ckpt"
    description = torch.load(path, weights_only=True)["hyper_parameters"]["net"]["init_args"]
    assert not {"pretrained", "data_dir"} & set(description)
    monkeypatch.setattr(
        TorchvisionNet, "_read_weights", None
    )  # pretrained weights must not be read
    task = Classifier.load_from_checkpoint(path, weights_only=True)
    ((name, probability),) = task.classify([Image.open(data_dir / "insects/val/ants/0.jpg")])
    assert name in ("ants", "bees")
    assert 0.5 <= probability <= 1


def test_task_built_in_python_does_not_store_the_pretrained_file(data_dir: Path) -> None:
    net = TorchvisionNet("squeezenet1_1", 2, pretrained="squeezenet.pth", data_dir=str(data_dir))
    task = Classifier(net, 2)
    assert task.hparams["net"]["init_args"]["name"] == "squeezenet1_1"
    assert "pretrained" not in task.hparams["net"]["init_args"]
    assert isinstance(task.backbone, nn.ModuleList)


@pytest.mark.slow
def test_two_processes_keep_equal_backbones(data_dir: Path, run: Callable[..., Path]) -> None:
    """DDP must register the parameters that are unfrozen later, or replicas diverge."""
    net = small(data_dir, "shufflenet_v2_x0_5", "shufflenet.pth")  # no dropout, frozen norms
    sgd = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0003)
    sgd += (
        "--model.lr_scheduler",
        "null",
        "--trainer.callbacks.ratio",
        1,
    )
    still = ("--data.augmentation", "null", "--trainer.max_epochs", 2)
    folders = [
        run(*net, *FINETUNING, *sgd, *still, *flags)
        for flags in ((), ("--trainer.devices", 2, "--trainer.strategy", "ddp_spawn"))
    ]
    one, two = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in folders
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


HYMENOPTERA = REAL_DIR / "hymenoptera/hymenoptera_data.zip"


@pytest.mark.skipif(not HYMENOPTERA.exists(), reason=f"no {HYMENOPTERA}")
def test_real_images_are_those_of_the_tutorial() -> None:
    from datamodules import ImageFolder

    data = ImageFolder(str(HYMENOPTERA), in_memory=False)
    with pytest.warns(UserWarning, match=r"train/ants/imageNotFound.gif \(not an image\)"):
        data.setup("fit")
    sizes = {split: torch.bincount(d.targets).tolist() for split, d in data.datasets.items()}
    assert sizes == {"train": [123, 121], "val": [70, 83], "test": []}
