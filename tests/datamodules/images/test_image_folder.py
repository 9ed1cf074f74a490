"""Images in folders: splits and classes, unreadable files, reproducible augmentation."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datamodules import Digits, ImageFolder
from engine.errors import UserError
from modules import Classifier
from modules.nets import MLP
from preprocessing.image_arrays import convert_image
from preprocessing.images import images_to_inputs
from tests.support.synthetic_data import make_image_folder

SIZES: dict[str, Any] = {"image_size": 12, "shorter_side": 16, "batch_size": 4}
CROPS = [v2.RandomResizedCrop(12, antialias=True), v2.RandomHorizontalFlip()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_folder(tmp_path_factory.mktemp("data"), {"train": 6, "val": 3, "test": 2})


@pytest.fixture
def copied(images: Path, tmp_path: Path) -> Path:
    """A copy, for tests that damage it."""
    return Path(shutil.copytree(images, tmp_path / "copied"))


def opened(folder: Path, **more: Any) -> ImageFolder:
    data = ImageFolder(str(folder), **{**SIZES, **more})
    data.prepare_data()
    data.setup("fit")
    return data


def epoch(data: ImageFolder, number: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    loader.load_state_dict({"position": start})
    return [(images.clone(), labels.clone()) for images, labels in loader]


def assert_equal(one: list, other: list) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_folders_are_splits_and_classes(images: Path) -> None:
    data = opened(images)
    assert data.class_names == ["ants", "bees"]
    sizes = {split: torch.bincount(d.targets).tolist() for split, d in data.datasets.items()}
    assert sizes == {"train": [6, 6], "val": [3, 3], "test": [2, 2]}
    for split, found in data.datasets.items():
        for file, label in zip(found.files, found.targets.tolist(), strict=True):
            assert file.startswith(f"{split}/{data.class_names[label]}/")


def test_zip_file_is_read_without_unpacking(images: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(images.rglob("*.jpg")):
            file.write(path, Path("some", "where", path.relative_to(images)))
        file.writestr("__MACOSX/some/where/train/ants/._0.jpg", b"left by a system")
        file.writestr("some/where/README.md", b"about them")
    with pytest.warns(UserWarning, match=r"1 file skipped: some/where/README.md"):
        data = opened(packed)
    assert_equal(epoch(data), epoch(opened(images)))
    assert [path.name for path in tmp_path.iterdir()] == ["packed.zip"]  # nothing is unpacked


def test_class_folders_are_split_by_a_fixed_seed(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "data", {"": 20})
    data = opened(folder, val_fraction=0.1, test_fraction=0.2)
    sizes = {split: torch.bincount(d.targets).tolist() for split, d in data.datasets.items()}
    assert sizes == {"train": [14, 14], "val": [2, 2], "test": [4, 4]}
    files = [file for found in data.datasets.values() for file in found.files]
    assert len(set(files)) == 40
    again = opened(folder, val_fraction=0.1, test_fraction=0.2, seed=7)
    assert again.datasets["val"].files == data.datasets["val"].files


def test_val_is_split_off_train_if_it_has_no_folder(tmp_path: Path) -> None:
    data = opened(make_image_folder(tmp_path / "data", {"train": 10}), val_fraction=0.2)
    assert {split: len(found) for split, found in data.datasets.items()} == {
        "train": 16, "val": 4, "test": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("workers", "in_memory"), [(0, True), (0, False), (2, False), (2, True)])
def test_augmentation_depends_on_seed_epoch_and_image_only(
    images: Path, workers: int, in_memory: bool
) -> None:
    plain = opened(images, augmentation=v2.Compose(CROPS), seed=3)
    data = opened(
        images,
        augmentation=v2.Compose(CROPS),
        seed=3,
        num_workers=workers,
        in_memory=in_memory,
    )
    assert_equal(epoch(data, 1), epoch(plain, 1))
    assert_equal(epoch(data, 1, start=2), epoch(plain, 1)[2:])  # a resumed run


def test_augmentation_differs_between_epochs_seeds_and_images(images: Path) -> None:
    data = opened(images, augmentation=v2.Compose(CROPS))
    split = data.datasets["train"]
    drawn = [split.view(0, 0), split.view(0, 1)]
    split.seed = 1
    drawn.append(split.view(0, 0))
    assert not any(torch.equal(a, b) for a in drawn for b in drawn if a is not b)
    split.images[1] = split.images[0]  # the same pixels in another row
    assert not torch.equal(split.view(0, 0), split.view(1, 0))


def test_augmentation_leaves_the_global_random_state_alone(images: Path) -> None:
    split = opened(images, augmentation=v2.Compose(CROPS)).datasets["train"]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    split.view(0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_validation_inputs_equal_those_of_the_checkpoint(images: Path) -> None:
    data = opened(images)
    split = data.datasets["val"]
    batch, labels = next(iter(data.val_dataloader()))
    inputs, _ = data.on_after_batch_transfer((batch.clone(), labels), 0)
    raw = [Image.open(images / file) for file in split.files[: len(labels)]]
    assert torch.equal(inputs, images_to_inputs(raw, data.preprocessing))
    task = Classifier(
        MLP(2, 3, 12), 2, class_names=data.class_names, preprocessing=data.preprocessing
    )
    (name, probability), *_ = task.classify(raw[:1])
    expected = task.eval()(inputs[:1]).softmax(1)[0]
    assert probability == pytest.approx(expected.max().item(), abs=1e-6)
    assert name == data.class_names[int(expected.argmax())]


def test_unreadable_files_are_named_and_skipped(copied: Path) -> None:
    data = (copied / "train/ants/0.jpg").read_bytes()
    (copied / "train/ants/1.jpg").write_bytes(b"not an image")
    (copied / "train/bees/2.jpg").write_bytes(data[:-300])  # its header is valid
    (copied / "val/bees/notes.txt").write_text("labels checked")
    with pytest.warns(UserWarning, match="3 files skipped") as caught:
        data = opened(copied, in_memory=True)
    (text,) = [str(one.message) for one in caught if "skipped" in str(one.message)]
    assert "val/bees/notes.txt (not an image)" in text
    assert "train/ants/1.jpg (broken), train/bees/2.jpg (broken)" in text
    assert torch.bincount(data.datasets["train"].targets).tolist() == [5, 5]


def test_image_found_unreadable_later_is_left_out_of_its_batch(
    copied: Path,
) -> None:
    data = (copied / "train/bees/2.jpg").read_bytes()
    (copied / "train/ants/1.jpg").write_bytes(b"not an image")
    (copied / "train/bees/2.jpg").write_bytes(data[:-300])
    with pytest.warns(UserWarning, match=r"1 file skipped: train/ants/1.jpg \(broken\)"):
        data = opened(copied, in_memory=False)  # headers are read, pixels are not
    assert len(data.datasets["train"]) == 11
    with pytest.warns(UserWarning, match=r"train/bees/2.jpg is broken and left out of its batch"):
        served = epoch(data) + epoch(data, 1) + epoch(data, 2)
    assert sorted({len(labels) for _, labels in served}) == [3, 4]
    assert all(len(images) == len(labels) for images, labels in served)


def test_16_bit_images_are_converted_and_float_images_skipped(copied: Path) -> None:
    grays = np.tile(np.arange(0, 2**16, 2**10, dtype=np.uint16), (64, 1))  # mean 126 of 255
    Image.fromarray(grays).save(copied / "train/ants/0.png")
    Image.fromarray(grays / np.float32(2**16)).save(copied / "train/ants/1.tiff")
    with pytest.warns(UserWarning, match=r"skipped: train/ants/1.tiff \(broken, floating-point"):
        data = opened(copied, in_memory=True)
    train = data.datasets["train"]
    image = train.image(train.files.index("train/ants/0.png"))
    assert image is not None
    assert image.float().mean().item() == pytest.approx(126, abs=1)
    with Image.open(copied / "train/ants/0.png") as raw:
        inputs = images_to_inputs([raw], data.preprocessing)
    torch.testing.assert_close(
        inputs, data.on_after_batch_transfer((train.crop(image)[None], torch.tensor([0])), 0)[0]
    )


def drawing(mode: str, color: tuple[int, ...] | int) -> Image.Image:
    return Image.new(mode, (20, 20), color)


@pytest.mark.parametrize(
    ("image", "gray"),
    [
        (drawing("RGBA", (0, 0, 0, 0)), 255),  # transparent black: white paper
        (drawing("RGBA", (10, 10, 10, 255)), 10),
        (drawing("RGBA", (0, 0, 0, 51)), 204),
        (drawing("LA", (0, 0)), 255),
        (drawing("RGBA", (0, 0, 0, 0)).convert("PA"), 255),
        (drawing("I", 200), 200),
        (drawing("I", 51_200), 200),
        (drawing("I;16", 51_200), 200),
        (drawing("I;16", 200), 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_and_integer_images_are_converted(image, gray: int, channels: int) -> None:
    converted = np.asarray(convert_image(image, channels))
    assert converted.shape == ((20, 20) if channels == 1 else (20, 20, 3))
    assert np.unique(converted).tolist() == [gray]
    preprocessing = {"in_channels": channels, "image_size": 4, "mean": [0.0], "std": [1.0]}
    inputs = images_to_inputs([image], preprocessing)
    assert inputs.unique().tolist() == [pytest.approx(gray / 255)]


def test_image_with_too_many_pixels_is_named(copied: Path, monkeypatch) -> None:
    Image.new("L", (64, 64)).save(copied / "train/ants/0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # instead of a 14,000 x 14,000 image
    for in_memory in (True, False):
        with pytest.warns(UserWarning, match=r"0.png \(too large, more than 4,000 pixels\)"):
            opened(copied, in_memory=in_memory)


@pytest.mark.parametrize("names", [("Training", "Valid", "Testing"), ("TRAIN", "dev", "test")])
def test_common_names_of_split_folders_are_recognized(copied: Path, names) -> None:
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (copied / old).rename(copied / new)
    data = opened(copied)
    assert data.class_names == ["ants", "bees"]
    assert [len(split) for split in data.datasets.values()] == [12, 6, 4]


def test_two_folders_for_one_split_are_an_error(copied: Path) -> None:
    (copied / "test").rename(copied / "validation")
    with pytest.raises(UserError, match="train, val, validation are the same split"):
        opened(copied)


def test_classes_may_have_the_name_of_a_split(copied: Path, tmp_path: Path) -> None:
    (copied / "train/ants").rename(tmp_path / "dev")
    (copied / "train/bees").rename(tmp_path / "ops")
    shutil.rmtree(copied)
    assert opened(tmp_path).class_names == ["dev", "ops"]


def test_predict_reads_unlabeled_images_in_order(images: Path, tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "new", {"": 2})
    (folder / "bees/0.jpg").rename(folder / "unknown.jpg")
    (folder / "bees/broken.png").write_bytes(b"not an image")
    data = ImageFolder(str(images), predict=str(folder), **SIZES)
    with pytest.warns(UserWarning, match=r"1 file skipped: bees/broken.png \(broken\)"):
        data.setup("predict")
    columns = data.predict_columns
    names = ["ants/0.jpg", "ants/1.jpg", "bees/1.jpg", "unknown.jpg"]
    assert columns["path"] == [str(folder / name) for name in names]
    assert columns["true_class"] == ["ants", "ants", "bees", None]
    (batch,) = data.predict_dataloader()
    inputs, _ = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(inputs, images_to_inputs(columns["path"], data.preprocessing))


def test_predict_takes_one_image_a_pattern_and_a_zip_file(images: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", images / "val")
    counts = {str(images / "val/ants/0.jpg"): 1, str(images / "v*/*/*.jpg"): 6, packed: 6}
    for predict, count in counts.items():
        data = Digits(predict=predict)
        data.setup("predict")
        assert len(data.predict_columns["path"]) == count
        ((inputs, _),) = data.predict_dataloader()
        assert inputs.shape == (count, 1, 8, 8)
    with pytest.raises(UserError, match=r"No image matches --data.predict 'nowhere/\*.png'"):
        Digits(predict="nowhere/*.png").setup("predict")


def test_table_gives_number_and_multi_label_targets(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "data", {"": 10})
    files = [f"{name}/{n}.jpg" for name in ("ants", "bees") for n in range(10)]
    lines = {
        "number": [f"{file},{n / 2}" for n, file in enumerate(files)],
        "labels": [f"{file},{'' if n % 2 else 'legs;wings'}" for n, file in enumerate(files)],
    }
    for target, rows in lines.items():
        (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
        data = opened(folder, table="labels.csv", target=target)
        (_, targets), *_ = epoch(data)
        assert targets.shape == {"number": (4,), "labels": (4, 2)}[target]
        assert targets.dtype == torch.float32
        train = data.datasets["train"]
        labels = dict(row.split(",") for row in rows)
        for file, encoded in zip(train.files, train.targets.tolist(), strict=True):
            expected = float(labels[file]) if target == "number" else [1.0 * bool(labels[file])] * 2
            assert encoded == expected
    assert data.class_names == ["legs", "wings"]
    (folder / "labels.csv").write_text("image,label\nnone.jpg,x\n")
    with pytest.raises(UserError, match=r"row 1 .*: no file none.jpg"):
        opened(folder, table="labels.csv")


def test_exif_orientation_is_applied(copied: Path) -> None:
    image = Image.new("RGB", (60, 40))
    orientation = Image.Exif()
    orientation[0x0112] = 6  # rotated by 90 degrees
    image.save(copied / "train/ants/0.jpg", exif=orientation)
    train = opened(copied, in_memory=True).datasets["train"]
    shape = train.image(train.files.index("train/ants/0.jpg")).shape  # type: ignore[union-attr]
    assert shape[1] > shape[2]


def test_linked_folders_are_followed_without_cycles(copied: Path, tmp_path: Path) -> None:
    shutil.move(copied / "train/bees", tmp_path / "elsewhere")
    (copied / "train/bees").symlink_to(tmp_path / "elsewhere")
    before = opened(copied).datasets["train"].files
    (copied / "train/ants/back").symlink_to(copied)
    data = opened(copied)
    assert data.class_names == ["ants", "bees"]
    assert len(before) == 12
    assert sorted(data.datasets["train"].files) == sorted(before)


def test_batch_without_rows_is_empty(images: Path) -> None:
    images, labels = opened(images).datasets["val"][torch.tensor([], dtype=torch.long)]
    assert images.shape == (0, 3, 12, 12)
    assert labels.shape == (0,)


def test_batch_without_readable_image_is_an_error(copied: Path) -> None:
    data = (copied / "train/bees/2.jpg").read_bytes()
    (copied / "train/bees/2.jpg").write_bytes(data[:-300])
    with (
        pytest.warns(UserWarning, match="left out of its batch"),
        pytest.raises(
            UserError, match=r"no image of a batch is readable, such as train/bees/2.jpg"
        ),
    ):
        epoch(opened(copied, in_memory=False, batch_size=1))


def test_damaged_entry_of_a_zip_file_is_skipped(images: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", images))
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("train/ants/1.jpg")
    data = bytearray(path.read_bytes())
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    for in_memory in (True, False):
        with pytest.warns(UserWarning, match=r"skipped: train/ants/1.jpg \(broken\)"):
            opened(path, in_memory=in_memory)


def test_two_ranks_share_the_batches_of_one(images: Path) -> None:
    class Rank(ImageFolder):
        rank, _world = 0, property(lambda self: (self.rank, 2))  # type: ignore[assignment]

    expected = epoch(opened(images, augmentation=v2.Compose(CROPS)))
    halves = []
    for rank in (0, 1):
        data = Rank(str(images), augmentation=v2.Compose(CROPS), **SIZES)
        data.rank = rank
        data.setup("fit")
        halves.append(epoch(data))
    joined = [
        tuple(torch.cat(pair) for pair in zip(a, b, strict=True))
        for a, b in zip(*halves, strict=True)
    ]
    assert_equal(joined, expected)


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [shutil.rmtree(folder / name) for name in names]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "val").rename(folder / "checks"),
            "the folders checks, test, train; expected train, val",
        ),
        (remove("train/ants", "val/ants", "test/ants"), "at least two classes"),
        (remove("train/ants"), "the class ants is in val or test, but not in train"),
        (lambda folder: shutil.rmtree(folder), "there are no images in"),
        (
            lambda folder: [p.write_bytes(b"") for p in folder.glob("val/*/*")],
            "no val image is readable",
        ),
    ],
)
def test_folders_that_are_neither_splits_nor_classes_are_an_error(
    copied: Path, damage: Callable, message: str
) -> None:
    damage(copied)
    with pytest.raises(UserError, match=message):
        opened(copied)


def test_invalid_zip_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK, but not for long")
    with pytest.raises(UserError, match="neither a folder nor a complete zip file"):
        opened(tmp_path / "images.zip")


def test_augmentation_with_another_size_is_an_error(images: Path) -> None:
    with pytest.raises(UserError, match=r"shape \(3, 9, 9\)"):
        opened(images, augmentation=v2.RandomResizedCrop(9))


@pytest.mark.parametrize(
    "wrong",
    [{"shorter_side": 8}, {"mean": [0.5]}, {"val_fraction": 0.0}, {"num_workers": -1}],
)
def test_argument_out_of_range_is_named(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        ImageFolder("anywhere", **{**SIZES, **wrong})
