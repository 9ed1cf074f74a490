"""Augmentation: affine and elastic maps, a draw per image, mixed labels, and their figure."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from callbacks import AugmentedSamples
from callbacks.figures.augmented_samples import augmented_figure
from datamodules import Digits
from datamodules.images.augmentation import (
    PerImageAffine,
    PerImageElastic,
    inverse_affine,
    resample,
)
from modules import Classifier
from modules.nets import MLP
from tests.support import TINY

STRONG = {"degrees": 30, "translate": 0.2, "scale": [0.7, 1.3], "shear": 20}


def blobs(number: int = 5, height: int = 20, width: int = 28, channels: int = 2) -> Tensor:
    """Create smooth uint8 images, all different."""
    small = torch.rand(number, channels, 5, 7)
    return (F.resize(small, [height, width]) * 255).byte()


@pytest.mark.parametrize("map", ["angle", "shift", "scale", "shear", "all"])
def test_maps_equal_torchvision(map: str) -> None:
    images = blobs().float()
    angles, shears = [10.0, -25.0, 90.0, 3.0, 0.0], [5.0, -20.0, 0.0, 12.0, 30.0]
    shifts, scales = [[3, 0], [0, -2], [5, 4], [-3, 1], [0, 0]], [0.8, 1.3, 1.0, 1.1, 0.9]
    angles = angles if map in ("angle", "all") else [0.0] * 5
    shifts = shifts if map in ("shift", "all") else [[0, 0]] * 5
    scales = scales if map in ("scale", "all") else [1.0] * 5
    shears = shears if map in ("shear", "all") else [0.0] * 5
    angle, shear = (torch.deg2rad(torch.tensor(values)) for values in (angles, shears))
    maps = inverse_affine(angle, torch.tensor(shifts).float(), torch.tensor(scales), shear)
    expected = [
        # torchvision's shear has the opposite sign.
        F.affine(image, a, t, s, [-h, 0.0], F.InterpolationMode.BILINEAR)
        for image, a, t, s, h in zip(images, angles, shifts, scales, shears, strict=True)
    ]
    # 0.05 of 255: both compute the positions in fp32, in a different order.
    torch.testing.assert_close(resample(images, maps), torch.stack(expected), atol=0.05, rtol=0)


def test_affine_without_ranges_is_the_identity() -> None:
    images = blobs()
    assert torch.equal(PerImageAffine()(images), images)


def test_elastic_with_alpha_0_equals_affine() -> None:
    images = blobs()
    seen = [
        (torch.manual_seed(0), kind(**STRONG, **more)(images))[1]
        for kind, more in ((PerImageAffine, {}), (PerImageElastic, {"alpha": 0.0}))
    ]
    assert torch.equal(*seen)
    assert torch.equal(PerImageElastic(alpha=0.0)(images), images)


def test_displacements_move_pixels() -> None:
    images, identity = blobs().float(), torch.eye(2, 3).repeat(5, 1, 1)
    displacements = torch.zeros(5, 20, 28, 2)
    displacements[..., 0], displacements[..., 1] = 3.0, -2.0  # sample from the right and above
    moved = resample(images, identity, displacements)
    torch.testing.assert_close(moved[:, :, 2:, :-3], images[:, :, :-2, 3:], atol=0.05, rtol=0)
    assert moved[:, :, :2].eq(0).all()


def test_displacements_have_the_expected_size_and_smoothness() -> None:
    for alpha, sigma in ((34.0, 4.0), (20.0, 6.0)):
        elastic = PerImageElastic(alpha=alpha, sigma=sigma)
        field = elastic.draw_displacements(400, 64, 64, torch.device("cpu"))  # (B, H, W, 2)
        inner = field[:, 24:40, 24:40]  # unaffected by the borders
        # Noise of variance 1/3, smoothed by a 2D Gaussian, has the variance 1 / (3 · 4 π σ²).
        assert inner.std() == pytest.approx(alpha / sigma * (1 / 12 / torch.pi) ** 0.5, rel=0.05)
        # Correlation of two pixels at distance d: exp(-d² / (4 σ²)).
        d, correlation = 5, lambda a, b: float((a * b).mean() / inner.square().mean())  # noqa: B023
        expected = math.exp(-(d**2) / 4 / sigma**2)
        assert correlation(inner[:, :, d:], inner[:, :, :-d]) == pytest.approx(expected, abs=0.06)
        assert abs(correlation(inner[..., 0], inner[..., 1])) < 0.15  # directions are independent


def test_elastic_draws_per_image_and_depends_on_the_seed() -> None:
    same, elastic = blobs(1).expand(6, -1, -1, -1), PerImageElastic()
    first, again, other = ((torch.manual_seed(seed), elastic(same))[1] for seed in (1, 1, 2))
    assert len({image.numpy().tobytes() for image in first}) == 6
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == (same.shape, same.dtype)


@pytest.mark.parametrize("range", STRONG.items(), ids=lambda item: item[0])
def test_affine_draws_per_image(range: tuple[str, float]) -> None:
    same = blobs(1).expand(6, -1, -1, -1)
    moved = PerImageAffine(**dict([range]))(same)
    assert len({image.numpy().tobytes() for image in moved}) == 6


def test_shape_dtype_and_inputs_are_preserved() -> None:
    for images in (blobs(), blobs() / 255):
        before = images.clone()
        moved = PerImageAffine(**STRONG)(images)
        assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
        assert not torch.equal(moved, images)
        assert torch.equal(images, before)


@pytest.mark.parametrize("range", STRONG.items(), ids=lambda item: item[0])
def test_affine_depends_on_the_seed(range: tuple[str, float]) -> None:
    images, affine = blobs(), PerImageAffine(**dict([range]))
    seen = [(torch.manual_seed(seed), affine(images))[1] for seed in (1, 1, 2)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_draws_fill_their_ranges() -> None:
    inverse = PerImageAffine(**STRONG).draw(4000, 20, 30, torch.device("cpu")).double()
    forward = inverse[:, :, :2].inverse()  # A = scale · R(angle) · [[1, tan(shear)], [0, 1]]
    shift = -(forward @ inverse[:, :, 2:]).squeeze(-1)
    scale = forward.det().sqrt()
    angle = torch.rad2deg(torch.atan2(forward[:, 1, 0], forward[:, 0, 0]))
    slope = (forward[:, :, 0] * forward[:, :, 1]).sum(dim=1) / scale**2
    for values, low, high in (
        (angle, -30, 30),
        (shift[:, 0], -6, 6),
        (shift[:, 1], -4, 4),
        (scale, 0.7, 1.3),
        (torch.rad2deg(slope.atan()), -20, 20),
    ):
        margin = 0.01 * (high - low)  # the extremes of 4,000 draws are closer
        assert low - 1e-4 < values.min() < low + margin
        assert high - margin < values.max() < high + 1e-4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"degrees": 200}, r"degrees must be in \[0, 180\], got 200"),
        ({"translate": -0.1}, r"translate must be in \[0, 1\], got -0\.1"),
        ({"scale": [1.2, 0.8]}, r"scale must be two ascending factors above 0, got \[1.2, 0.8\]"),
        ({"scale": [0.0, 1.0]}, r"scale must be two ascending factors"),
        ({"shear": 90}, r"shear must be in \[0, 89\], got 90"),
    ],
)
def test_invalid_range_is_an_error(wrong: dict, message: str) -> None:
    for kind in (PerImageAffine, PerImageElastic):
        with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
            kind(**wrong)


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"sigma": 0.0}, {"alpha": float("nan")}])
def test_invalid_elastic_argument_is_an_error(wrong: dict) -> None:
    with pytest.raises(ValueError, match="alpha must be at least 0 and sigma above 0"):
        PerImageElastic(**wrong)


def trainer(folder: Path, *callbacks: L.Callback, **more) -> L.Trainer:
    settings = {
        "logger": CSVLogger(folder, name="", version=""),
        "accelerator": "cpu",
        "max_epochs": 1,
        "limit_train_batches": 4,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
    }
    return L.Trainer(callbacks=list(callbacks), **(settings | more))


class Recorder(L.Callback):
    """Record the batches and the losses."""

    def __init__(self) -> None:
        self.train: list[tuple[Tensor, Tensor]] = []
        self.val: list[tuple[Tensor, Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.train.append(batch)
        self.losses.append(outputs["loss"].item())

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.val.append(batch)


def fit(folder: Path, *callbacks: L.Callback, seed: int = 0, **data) -> Recorder:
    recorder = Recorder()
    L.seed_everything(seed)
    task = Classifier(MLP(image_size=8, hidden_sizes=[16]))
    trainer(folder, recorder, *callbacks).fit(task, Digits(batch_size=32, **data))
    return recorder


def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    plain = fit(tmp_path)
    moved = fit(tmp_path, augmentation=PerImageAffine(**STRONG), batch_mixing=v2.MixUp())
    assert not torch.equal(moved.train[0][0], plain.train[0][0])
    for ours, theirs in zip(moved.val, plain.val, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
    augmented = fit(tmp_path, augmentation=PerImageAffine(**STRONG))
    for ours, theirs in zip(augmented.train, plain.train, strict=True):
        assert torch.equal(ours[1], theirs[1])  # labels are unchanged


def test_augmented_training_is_reproducible(tmp_path: Path) -> None:
    options = {"augmentation": PerImageAffine(**STRONG), "batch_mixing": v2.CutMix()}
    assert fit(tmp_path, **options).losses == fit(tmp_path, **options).losses
    assert fit(tmp_path, **options).losses != fit(tmp_path, seed=1, **options).losses


def test_mixed_labels_are_the_fractions_of_the_images(tmp_path: Path) -> None:
    plain = fit(tmp_path).train
    # Normalization is linear: mixing before or after it is the same.
    for (inputs, targets), (images, labels) in zip(
        fit(tmp_path, batch_mixing=v2.MixUp(alpha=1.0)).train, plain, strict=True
    ):
        assert targets.shape == (32, 10)
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(32))
        apart = labels != labels.roll(1)
        fraction = targets.gather(1, labels[:, None])[apart][0]  # one draw per batch
        torch.testing.assert_close(inputs, fraction * images + (1 - fraction) * images.roll(1, 0))
        torch.testing.assert_close(
            targets.gather(1, labels.roll(1)[:, None])[apart], (1 - fraction).expand(apart.sum(), 1)
        )


def test_composed_transforms_from_a_config_are_recorded(
    tmp_path: Path, run: Callable[..., Path]
) -> None:
    transforms = "torchvision.transforms.v2"
    affine = {"class_path": "datamodules.PerImageAffine", "init_args": STRONG}
    parts = [affine, {"class_path": f"{transforms}.RandomErasing", "init_args": {"p": 0.5}}]
    mixing = [{"class_path": f"{transforms}.{name}"} for name in ("MixUp", "CutMix")]
    config = {
        "model": {
            "class_path": "modules.Classifier",
            "init_args": {"net": "modules.nets.MLP", "label_smoothing": 0.1},
        },
        "data": {
            "class_path": "datamodules.Digits",
            "init_args": {
                "augmentation": {
                    "class_path": f"{transforms}.Compose",
                    "init_args": {"transforms": parts},
                },
                "batch_mixing": {
                    "class_path": f"{transforms}.RandomChoice",
                    "init_args": {"transforms": mixing},
                },
            },
        },
        "trainer": {"max_epochs": 1, "log_every_n_steps": 2, "accelerator": "cpu"},
    }
    config["trainer"]["callbacks"] = ["callbacks.AugmentedSamples"]
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(config))
    folder = run("fit", "--config", tmp_path / "mixed.yaml")
    results = json.loads((folder / "results.json").read_text())
    assert 0 < results["metrics"]["train/accuracy"] < 1
    assert "tokens_per_second" not in results  # probabilities are not tokens
    assert (folder / "figures" / "augmented_samples.png").exists()
    again = yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]
    parts = again["augmentation"]["init_args"]["transforms"]
    assert parts[0]["init_args"] == STRONG
    task = Classifier.load_from_checkpoint(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(task.classify(torch.rand(2, 1, 8, 8))) == 2


@pytest.mark.parametrize(
    ("key", "name"), [("augmentation", "Compose"), ("batch_mixing", "RandomChoice")]
)
def test_empty_list_of_transforms_is_an_error(refused, key, name) -> None:
    flags = (f"--data.{key}", f"torchvision.transforms.v2.{name}", f"--data.{key}.transforms", "[]")
    paragraph = refused("fit", "--config", TINY, *flags)
    assert f"data.{key}.transforms is empty" in paragraph
    assert f"--data.{key} null" in paragraph


def test_figure_shows_images_and_their_augmentations(tmp_path: Path, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "callbacks.figures.augmented_samples.augmented_figure",
        lambda images, labels: (
            seen.update(images=images, labels=labels) or augmented_figure(images, labels)
        ),
    )
    recorder = fit(tmp_path, AugmentedSamples(3, 5), augmentation=PerImageAffine(**STRONG))
    data = Digits(batch_size=32)
    data.setup("fit")
    images, labels = next(iter(data.train_dataloader()))
    raw = images[:3].permute(0, 2, 3, 1).numpy() / 255
    np.testing.assert_allclose(seen["images"][:, 0], raw, atol=1e-6)
    cells = seen["images"].reshape(15, -1)
    assert len({cell.tobytes() for cell in cells}) == 15  # all draws differ
    assert seen["labels"] == [[str(label) for label in labels[:3].tolist()]] * 5
    image = np.asarray(Image.open(tmp_path / "figures/augmented_samples.png").convert("L"))
    assert image.std() > 20
    assert len(recorder.train) == 4


def test_figure_shows_the_fractions_of_mixed_images(tmp_path: Path, monkeypatch) -> None:
    seen: list[list[list[str]]] = []
    monkeypatch.setattr(
        "callbacks.figures.augmented_samples.augmented_figure",
        lambda images, labels: seen.append(labels) or augmented_figure(images, labels),
    )
    fit(tmp_path, AugmentedSamples(4, 3), batch_mixing=v2.MixUp(alpha=5.0))
    first, *draws = seen[0]
    assert all(len(label) == 1 for label in first)
    for label, own, other in zip(draws[0], first, [first[-1], *first], strict=False):
        if own != other:  # MixUp mixes with the previous image
            shares = {part.split()[0]: int(part.split()[1][:-1]) for part in label.split(", ")}
            assert set(shares) == {own, other}
            assert sum(shares.values()) == 100


def test_figure_does_not_change_training(tmp_path: Path) -> None:
    options = {"augmentation": PerImageAffine(**STRONG), "batch_mixing": v2.MixUp()}
    assert (
        fit(tmp_path / "a", **options).losses
        == fit(tmp_path / "b", AugmentedSamples(), **options).losses
    )


def test_fit_without_images_warns_and_draws_no_figure(tmp_path: Path) -> None:
    class Words(L.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            rows = torch.rand(20, 6), torch.randint(10, (20,))
            return DataLoader(TensorDataset(*rows), 5)

    task = Classifier(nn.Linear(6, 10))
    with pytest.warns(UserWarning, match="AugmentedSamples draws nothing"):
        trainer(tmp_path, AugmentedSamples(), limit_val_batches=0).fit(task, Words())
    with pytest.warns(UserWarning, match="AugmentedSamples draws nothing"):
        trainer(tmp_path, AugmentedSamples(), limit_val_batches=0).fit(
            task, Words().train_dataloader()
        )
    assert not (tmp_path / "figures").exists()


def test_grid_without_cells_is_an_error() -> None:
    for rows, columns in ((0, 5), (3, 1)):
        with pytest.raises(ValueError, match=f"got {rows} and {columns}"):
            AugmentedSamples(rows, columns)
