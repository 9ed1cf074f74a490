"""Photographs in folders: the right ones, whole ones, and the same draws however they are read."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datamodules import ImageFolder
from modules import Classifier
from modules.nets import MLP
from preprocessing.images import images_to_inputs
from tests.support.synthetic_data import make_image_folder

SIZES: dict[str, Any] = {"image_size": 12, "shorter_side": 16, "batch_size": 4}
CROPS = [v2.RandomResizedCrop(12, antialias=True), v2.RandomHorizontalFlip()]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_folder(tmp_path_factory.mktemp("data"), {"train": 6, "val": 3, "test": 2})


@pytest.fixture
def copied(photographs: Path, tmp_path: Path) -> Path:
    """A copy, for tests that spoil it."""
    return Path(shutil.copytree(photographs, tmp_path / "copied"))


def opened(folder: Path, **more: Any) -> ImageFolder:
    data = ImageFolder(str(folder), **{**SIZES, **more})
    data.prepare_data()
    data.setup("fit")
    return data


def epoch(data: ImageFolder, number: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    loader.load_state_dict({"position": start})
    return [(pictures.clone(), labels.clone()) for pictures, labels in loader]


def assert_equal(one: list, other: list) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_folders_are_splits_and_classes(photographs: Path) -> None:
    data = opened(photographs)
    assert data.class_names == ["ants", "bees"]
    sizes = {split: torch.bincount(d.labels).tolist() for split, d in data.photographs.items()}
    assert sizes == {"train": [6, 6], "val": [3, 3], "test": [2, 2]}
    for split, found in data.photographs.items():
        for file, label in zip(found.files, found.labels.tolist(), strict=True):
            assert file.startswith(f"{split}/{data.class_names[label]}/")


def test_a_zip_file_is_read_as_it_is(photographs: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(photographs.rglob("*.jpg")):
            file.write(path, Path("some", "where", path.relative_to(photographs)))
        file.writestr("__MACOSX/some/where/train/ants/._0.jpg", b"left by a system")
        file.writestr("some/where/README.md", b"about them")
    with pytest.warns(UserWarning, match=r"1 file is left out: some/where/README.md"):
        data = opened(packed)
    assert_equal(epoch(data), epoch(opened(photographs)))
    assert [path.name for path in tmp_path.iterdir()] == ["packed.zip"]  # nothing is unpacked


def test_classes_without_splits_are_split_by_fixed_numbers(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "data", {"": 20})
    data = opened(folder, val_fraction=0.1, test_fraction=0.2)
    sizes = {split: torch.bincount(d.labels).tolist() for split, d in data.photographs.items()}
    assert sizes == {"train": [14, 14], "val": [2, 2], "test": [4, 4]}
    files = [file for found in data.photographs.values() for file in found.files]
    assert len(set(files)) == 40
    again = opened(folder, val_fraction=0.1, test_fraction=0.2, seed=7)
    assert again.photographs["val"].files == data.photographs["val"].files


def test_training_pictures_validate_where_there_is_no_val(tmp_path: Path) -> None:
    data = opened(make_image_folder(tmp_path / "data", {"train": 10}), val_fraction=0.2)
    assert {split: len(found) for split, found in data.photographs.items()} == {
        "train": 16, "val": 4, "test": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("workers", "in_memory"), [(0, True), (0, False), (2, False), (2, True)])
def test_a_draw_is_that_of_seed_epoch_and_picture_however_it_is_read(
    photographs: Path, workers: int, in_memory: bool
) -> None:
    plain = opened(photographs, augmentation=v2.Compose(CROPS), seed=3)
    data = opened(
        photographs,
        augmentation=v2.Compose(CROPS),
        seed=3,
        num_workers=workers,
        in_memory=in_memory,
    )
    assert_equal(epoch(data, 1), epoch(plain, 1))
    assert_equal(epoch(data, 1, start=2), epoch(plain, 1)[2:])  # a run that goes on


def test_epochs_seeds_and_pictures_have_draws_of_their_own(photographs: Path) -> None:
    data = opened(photographs, augmentation=v2.Compose(CROPS))
    split = data.photographs["train"]
    drawn = [split.view(0, 0), split.view(0, 1)]
    split.seed = 1
    drawn.append(split.view(0, 0))
    assert not any(torch.equal(a, b) for a in drawn for b in drawn if a is not b)
    split.pictures[1] = split.pictures[0]  # the same pixels in another place
    assert not torch.equal(split.view(0, 0), split.view(1, 0))


def test_drawing_leaves_the_state_of_random_numbers_alone(photographs: Path) -> None:
    split = opened(photographs, augmentation=v2.Compose(CROPS)).photographs["train"]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    split.view(0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_what_validates_is_what_the_checkpoint_makes_of_the_raw_file(photographs: Path) -> None:
    data = opened(photographs)
    split = data.photographs["val"]
    pictures, labels = next(iter(data.val_dataloader()))
    inputs, _ = data.on_after_batch_transfer((pictures.clone(), labels), 0)
    raw = [Image.open(photographs / file) for file in split.files[: len(labels)]]
    assert torch.equal(inputs, images_to_inputs(raw, data.preprocessing))
    task = Classifier(
        MLP(2, 3, 12), 2, class_names=data.class_names, preprocessing=data.preprocessing
    )
    (name, probability), *_ = task.classify(raw[:1])
    share = task.eval()(inputs[:1]).softmax(1)[0]
    assert probability == pytest.approx(share.max().item(), abs=1e-6)
    assert name == data.class_names[int(share.argmax())]


def test_files_that_are_broken_or_no_pictures_are_named_and_left_out(copied: Path) -> None:
    whole = (copied / "train/ants/0.jpg").read_bytes()
    (copied / "train/ants/1.jpg").write_bytes(b"no picture at all")
    (copied / "train/bees/2.jpg").write_bytes(whole[:-300])  # its header is right
    (copied / "val/bees/notes.txt").write_text("by hand")
    with pytest.warns(UserWarning, match="3 files are left out") as told:
        data = opened(copied, in_memory=True)
    (text,) = [str(one.message) for one in told if "left out" in str(one.message)]
    assert "val/bees/notes.txt (no picture)" in text
    assert "train/ants/1.jpg (broken), train/bees/2.jpg (broken)" in text
    assert torch.bincount(data.photographs["train"].labels).tolist() == [5, 5]


def test_a_picture_that_proves_broken_when_it_is_read_is_left_out_of_its_batch(
    copied: Path,
) -> None:
    whole = (copied / "train/bees/2.jpg").read_bytes()
    (copied / "train/ants/1.jpg").write_bytes(b"no picture at all")
    (copied / "train/bees/2.jpg").write_bytes(whole[:-300])
    with pytest.warns(UserWarning, match=r"1 file is left out: train/ants/1.jpg \(broken\)"):
        data = opened(copied, in_memory=False)  # headers are read, pixels are not
    assert len(data.photographs["train"]) == 11
    with pytest.warns(UserWarning, match=r"train/bees/2.jpg is broken and left out of its batch"):
        served = epoch(data) + epoch(data, 1) + epoch(data, 2)
    assert sorted({len(labels) for _, labels in served}) == [3, 4]
    assert all(len(pictures) == len(labels) for pictures, labels in served)


def test_sixteen_bits_keep_their_greys_and_floats_are_left_out(copied: Path) -> None:
    greys = np.tile(np.arange(0, 2**16, 2**10, dtype=np.uint16), (64, 1))  # mean 126 of 255
    Image.fromarray(greys).save(copied / "train/ants/0.png")
    Image.fromarray(greys / np.float32(2**16)).save(copied / "train/ants/1.tiff")
    with pytest.warns(UserWarning, match=r"left out: train/ants/1.tiff \(broken\)"):
        data = opened(copied, in_memory=True)
    train = data.photographs["train"]
    picture = train.picture(train.files.index("train/ants/0.png"))
    assert picture is not None
    assert picture.float().mean().item() == pytest.approx(126, abs=1)
    with Image.open(copied / "train/ants/0.png") as raw:
        inputs = images_to_inputs([raw], data.preprocessing)
    torch.testing.assert_close(
        inputs, data.on_after_batch_transfer((train.cut(picture)[None], torch.tensor([0])), 0)[0]
    )


def test_a_picture_taken_upright_lies_upright(copied: Path) -> None:
    picture = Image.new("RGB", (60, 40))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    picture.save(copied / "train/ants/0.jpg", exif=turned)
    train = opened(copied, in_memory=True).photographs["train"]
    shape = train.picture(train.files.index("train/ants/0.jpg")).shape  # type: ignore[union-attr]
    assert shape[1] > shape[2]


def test_linked_folders_are_followed_and_circles_are_not(copied: Path, tmp_path: Path) -> None:
    shutil.move(copied / "train/bees", tmp_path / "elsewhere")
    (copied / "train/bees").symlink_to(tmp_path / "elsewhere")
    before = opened(copied).photographs["train"].files
    (copied / "train/ants/back").symlink_to(copied)
    data = opened(copied)
    assert data.class_names == ["ants", "bees"]
    assert len(before) == 12
    assert sorted(data.photographs["train"].files) == sorted(before)


def test_a_process_may_have_no_pictures_of_a_batch(photographs: Path) -> None:
    pictures, labels = opened(photographs).photographs["val"][torch.tensor([], dtype=torch.long)]
    assert pictures.shape == (0, 3, 12, 12)
    assert labels.shape == (0,)


def test_a_batch_without_a_whole_picture_is_one_sentence(copied: Path) -> None:
    whole = (copied / "train/bees/2.jpg").read_bytes()
    (copied / "train/bees/2.jpg").write_bytes(whole[:-300])
    with (
        pytest.warns(UserWarning, match="left out of its batch"),
        pytest.raises(MisconfigurationException, match=r"train/bees/2.jpg for one"),
    ):
        epoch(opened(copied, in_memory=False, batch_size=1))


def test_a_damaged_entry_of_a_zip_file_is_left_out(photographs: Path, tmp_path: Path) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "photographs"), "zip", photographs))
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("train/ants/1.jpg")
    data = bytearray(path.read_bytes())
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    for in_memory in (True, False):
        with pytest.warns(UserWarning, match=r"left out: train/ants/1.jpg \(broken\)"):
            opened(path, in_memory=in_memory)


def test_two_processes_share_what_one_would_see(photographs: Path) -> None:
    class Rank(ImageFolder):
        rank, _world = 0, property(lambda self: (self.rank, 2))  # type: ignore[assignment]

    whole = epoch(opened(photographs, augmentation=v2.Compose(CROPS)))
    halves = []
    for rank in (0, 1):
        data = Rank(str(photographs), augmentation=v2.Compose(CROPS), **SIZES)
        data.rank = rank
        data.setup("fit")
        halves.append(epoch(data))
    shared = [
        tuple(torch.cat(pair) for pair in zip(a, b, strict=True))
        for a, b in zip(*halves, strict=True)
    ]
    assert_equal(shared, whole)


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [shutil.rmtree(folder / name) for name in names]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda folder: (folder / "val").rename(folder / "valid"),
            "the folders test, train, valid",
        ),
        (remove("train/ants", "val/ants", "test/ants"), "two classes or more"),
        (remove("train/ants"), "the class ants is in val or test, but not in train"),
        (lambda folder: shutil.rmtree(folder), "there are no pictures"),
        (
            lambda folder: [p.write_bytes(b"") for p in folder.glob("val/*/*")],
            "no picture of val can be read",
        ),
    ],
)
def test_folders_that_make_no_sense_are_refused(copied: Path, spoil: Callable, told: str) -> None:
    spoil(copied)
    with pytest.raises(MisconfigurationException, match=told):
        opened(copied)


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures.zip").write_bytes(b"PK, but not for long")
    with pytest.raises(MisconfigurationException, match="neither a folder nor a whole zip file"):
        opened(tmp_path / "pictures.zip")


def test_an_augmentation_of_another_size_is_refused(photographs: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"shape \(3, 9, 9\)"):
        opened(photographs, augmentation=v2.RandomResizedCrop(9))


@pytest.mark.parametrize(
    "wrong",
    [{"shorter_side": 8}, {"mean": [0.5]}, {"val_fraction": 0.0}, {"num_workers": -1}],
)
def test_numbers_out_of_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageFolder("anywhere", **{**SIZES, **wrong})
