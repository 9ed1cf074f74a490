"""Your own images: one folder per class or a table of labels, in a folder or a zip file."""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

from datamodules.images.image_files import (
    MEMORY,
    decode,
    is_image,
    list_files,
    map_files,
    read_file,
    resize_shorter_side,
    unreadable,
    warn_skipped,
)
from datamodules.images.in_memory import ImageDataModule, Split
from datamodules.loading.fingerprint import fingerprint, warn_if_changed
from datamodules.loading.loader import BatchLoader, seed_everything
from datamodules.loading.splits import SPLIT_SEED, stratified_split
from datamodules.loading.tables import (
    Target,
    class_names_of,
    encode_labels,
    read_table,
    readable_label,
    to_targets,
)
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from engine.errors import UserError

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {  # names of folders, in any case
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}

Labeled = list[tuple[str, Any]]  # file names and their encoded labels


class Listing(NamedTuple):
    """The labeled files of a folder or zip file."""

    class_names: list[str]
    splits: dict[str, Labeled]
    ignored: list[str]  # files that are not images


class ImageFolder(ImageDataModule):
    """Your own images, as `<class>/*.jpg` or `train/<class>/*.jpg`, `val/<class>/*.jpg`, `test/…`.

    Split folders may also be called training, valid, validation, dev or testing, in any case.
    Without them, or with a table of labels, each class is split by a fixed seed. A zip file is read
    without unpacking it. `test` may be missing.

    An image is converted to RGB (transparency on white), resized so that its shorter side is
    `shorter_side`, and center-cropped to `image_size`; in training, `augmentation` replaces the
    crop. Its random numbers depend on the seed, the epoch and the image only, not on the number of
    workers and processes, and are the same in a resumed run.

    Files that are not images, by their extension or header, are skipped with a warning. An image
    whose pixels turn out to be unreadable is left out of its batch with a warning.

    Also takes the arguments of ImageDataModule.

    Args:
        folder: Folder or zip file, in data_dir or anywhere.
        batch_size: Global batch size, over all processes.
        augmentation: Transform of a uint8 image (3, height, width), with a shorter side of
            `shorter_side`, to `image_size` squared: torchvision.transforms.v2.RandomResizedCrop and
            others, in a torchvision.transforms.v2.Compose. By default the center crop.
        image_size: Height and width of the network's inputs.
        shorter_side: Shorter side of an image before it is cropped.
        mean: Mean of each channel in 0…1; ImageNet's by default, as pretrained networks expect.
        std: Standard deviation of each channel.
        val_fraction: Fraction of each class for validation if there is no folder for it.
        test_fraction: Fraction of each class for testing if there are no split folders.
        num_workers: Processes that prepare the batches; 0: the training process.
        in_memory: Decode all images once and keep them resized to `shorter_side`. By default if
            that takes less than 2 GB.
        table: CSV, TSV or JSON-lines file in `folder` with the columns `image` and `label`, instead
            of class folders.
        target: Kind of label in `table`: `class`, `number` (regression) or `labels` (several
            classes per image, as a JSON list or separated by `;`).

    Raises:
        UserError: If an argument is out of its range.
    """

    in_channels = 3

    def __init__(
        self,
        folder: str,
        batch_size: int = 32,
        augmentation: nn.Module | None = None,
        image_size: int = 224,
        shorter_side: int = 256,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        num_workers: int = 0,
        in_memory: bool | None = None,
        table: str | None = None,
        target: Target = "class",
        **kwargs: Any,
    ) -> None:
        # Images differ in shape, so that the augmentation is applied to single images.
        super().__init__(batch_size=batch_size, augmentation=None, **kwargs)
        if image_size < 1:
            raise UserError(f"image_size must be at least 1, got {image_size}.")
        if shorter_side < image_size:
            raise UserError(f"shorter_side {shorter_side} is less than image_size {image_size}.")
        if not len(mean) == len(std) == 3:
            raise UserError("mean and std must have three numbers, for red, green and blue.")
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UserError(
                f"val_fraction and test_fraction must be positive and add up to less than 1, got "
                f"{val_fraction} and {test_fraction}."
            )
        if num_workers < 0:
            raise UserError(f"num_workers must be at least 0, got {num_workers}.")
        if table is None and target != "class":
            raise UserError(f"target {target} needs --data.table with the columns image and label.")
        self.folder = folder
        self.image_augmentation = augmentation
        self.image_size = image_size  # type: ignore[misc]  # a class attribute of other data sets
        self.shorter_side = shorter_side
        self.mean, self.std = list(mean), list(std)  # type: ignore[misc]
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.table = table
        self.target = target
        self.datasets: dict[str, ImageFiles] = {}

    @property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """Names of the class folders, sorted; the labels of the table."""
        return self._listing.class_names

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How raw images become inputs, as plain values for the checkpoint."""
        return super().preprocessing | {"shorter_side": self.shorter_side}

    @property
    def root(self) -> Path:
        """The folder or zip file."""
        folder = Path(self.folder).expanduser()
        for path in (Path(self.data_dir, folder), folder):
            if path.exists():
                return path
        raise UserError(
            f"there are no images in {self.folder}: it is neither in the data folder "
            f"{Path(self.data_dir).resolve()} nor in {Path.cwd()}. Put a folder or zip file with "
            "<class>/*.jpg, or train/<class>/*.jpg and val/<class>/*.jpg, there; name it with "
            "--data.folder, its parent with DATA_DIR=… or --data.data_dir; or start with a config "
            "that needs no download: --config configs/digits/cnn.yaml"
        )

    @cached_property
    def _listing(self) -> Listing:
        fractions = (self.val_fraction, self.test_fraction)
        if self.table is None:
            return list_class_folders(self.root, fractions)
        return list_table(self.root, self.table, self.target, fractions)

    def _labels(self, split: str) -> list[Any]:
        return [label for _, label in self._listing.splits[split]]

    @property
    def predict_columns(self) -> dict[str, list[Any]]:
        """Columns that identify each predicted sample in `predictions.csv`."""
        if self._prediction_images is not None:
            return self._prediction_images.columns
        test = self.datasets["test"]
        names = [readable_label(label, self.target, self.class_names) for label in test.encoded]
        return {
            "path": [str(self.root / file) for file in test.files],
            f"true_{self.target}": names,
        }

    def prepare_data(self) -> None:
        self._listing  # noqa: B018  # raise errors before processes are started

    @property
    def fingerprint(self) -> str:
        """Hash of the names and labels of the training files."""
        return fingerprint(self._listing.splits["train"])["fingerprint"]

    def state_dict(self) -> dict[str, str]:
        """Save a fingerprint of the training files in checkpoints."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        warn_if_changed(self, state_dict)

    def load(self) -> dict[str, Split]:
        raise NotImplementedError("images of different shapes are not a tensor")

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if self.datasets or (stage == "predict" and self._prediction_images is not None):
            return
        class_names, splits, ignored = self._listing
        files = [file for split in splits.values() for file, _ in split]
        keep = self.in_memory
        if keep is None:  # most photos have the aspect ratio 4:3
            keep = len(files) * 3 * self.shorter_side**2 * 4 / 3 <= MEMORY
        check = self._check_pixels if stage == "predict" else self._check_header
        found = map_files(self._decode if keep else check, files)
        reasons = [f"{name} ({why})" for name, why in sorted(found.items()) if isinstance(why, str)]
        warn_skipped(self.root, [f"{name} (not an image)" for name in ignored] + reasons)
        for split, labeled in splits.items():
            readable = [(f, label) for f, label in labeled if not isinstance(found[f], str)]
            if labeled and not readable:
                raise UserError(f"{self.root}: no {split} image is readable: {reasons[0]}.")
            self.datasets[split] = ImageFiles(
                self.root,
                [file for file, _ in readable],
                [label for _, label in readable],
                to_targets([label for _, label in readable], self.target, len(class_names)),
                [found[file] for file, _ in readable] if keep else None,
                self.shorter_side,
                self.image_size,
            )
        self.datasets["train"].augmentation = self.image_augmentation
        self.datasets["train"].seed = self.seed
        if self.image_augmentation is not None:
            self._check_augmentation()

    def _decode(self, file: str) -> Tensor | str:
        return decode(self.root, file, lambda i: resize_shorter_side(i, self.shorter_side))

    def _check_header(self, file: str) -> str | None:
        try:
            Image.open(BytesIO(read_file(self.root, file))).close()
        except Exception as error:  # as in `decode`
            return unreadable(error)
        return None

    def _check_pixels(self, file: str) -> str | None:
        """Decode: predictions must not lose a row to an image that is found unreadable later."""
        found = self._decode(file)
        return found if isinstance(found, str) else None

    def _check_augmentation(self) -> None:
        size = (3, self.image_size, self.image_size)
        example = torch.zeros(3, self.shorter_side, self.shorter_side * 4 // 3, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):
            output = self.image_augmentation(example)  # type: ignore[misc]
        if output.shape != size or output.dtype != torch.uint8:
            raise UserError(
                f"data.augmentation returns images of shape {tuple(output.shape)} "
                f"({output.dtype}), the network needs {size} (torch.uint8): set its size to "
                "data.image_size, and leave out scaling and normalization."
            )

    def augmented_examples(self, number: int, draws: int) -> tuple[Split, list[Split]]:
        """Return cropped training images, and the network's inputs from them in the first epochs.

        Args:
            number: Number of images, at most the batch size.
            draws: Number of batches of the same images.
        """
        data = self.datasets["train"]
        _, batch = next(iter(EpochBatchSampler(len(data), self.batch_size, self.seed)))
        rows = [row for row in batch.tolist() if data.image(row) is not None][:number]
        labels = data.targets[rows]
        plain = [data.crop(data.image(row)) for row in rows]  # type: ignore[arg-type]
        views = [torch.stack([data.view(row, epoch) for row in rows]) for epoch in range(draws)]  # type: ignore[misc]
        inputs = [self.on_after_batch_transfer((images, labels), 0) for images in views]
        return (torch.stack(plain), labels), inputs

    def train_dataloader(self) -> DataLoader:
        rank, world_size = self._world
        data = self.datasets["train"]
        batches = EpochBatchSampler(
            *(len(data), self.batch_size, self.seed, rank, world_size),
            self._sampling_classes(data.targets),
        )
        return self._loader("train", batches=batches, seed=self.seed, rank=rank)

    @property
    def has_test_split(self) -> bool:
        """Whether there are test images."""
        return bool(self._listing.splits["test"])

    def _evaluation_loader(self, split: str) -> DataLoader:
        size = len(self.datasets[split])
        if not size:
            raise UserError(
                f"{self.root} has no {split} images: evaluate on the validation images with "
                "train.py validate or scripts.evaluate --split val."
            )
        batches = EvaluationBatchSampler(size, self.batch_size, *self._world)
        return self._loader(split, batches=batches)

    def _loader(self, split: str, **kwargs: Any) -> DataLoader:
        return BatchLoader(self.datasets[split], num_workers=self.num_workers, **kwargs)


class EpochBatchSampler(TrainingBatchSampler):
    """Yield (epoch, rows): a worker process has no other access to the epoch."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:  # type: ignore[override]
        return ((self.epoch, rows) for rows in super().__iter__())


class ImageFiles(Dataset[Split]):
    """A split; an item is a batch: images (B, 3, size, size) uint8 and their targets.

    Args:
        root: Folder or zip file.
        files: File names.
        encoded: Encoded labels.
        targets: Targets, (N,) or (N, num_classes).
        images: All images, decoded; None: decode them on demand.
        shorter_side: See ImageFolder.
        image_size: See ImageFolder.
    """

    def __init__(
        self,
        root: Path,
        files: list[str],
        encoded: list[Any],
        targets: Tensor,
        images: Sequence[Tensor] | None,
        shorter_side: int,
        image_size: int,
    ) -> None:
        self.root, self.files, self.images = root, files, images
        self.encoded, self.targets = encoded, targets
        self.shorter_side, self.image_size = shorter_side, image_size
        self.augmentation: nn.Module | None = None
        self.seed = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Tensor | tuple[int, Tensor]) -> Split:
        epoch, rows = index if isinstance(index, tuple) else (0, index)
        views = [(row, self.view(row, epoch)) for row in rows.tolist()]
        found = [(row, image) for row, image in views if image is not None]
        if len(rows) and not found:
            raise UserError(
                f"{self.root}: no image of a batch is readable, such as {self.files[rows[0]]}: "
                "remove broken images, or increase --data.batch_size."
            )
        none = torch.empty(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
        images = torch.stack([image for _, image in found]) if found else none
        return images, self.targets[[row for row, _ in found]]

    def view(self, row: int, epoch: int) -> Tensor | None:
        """Return an image as the network gets it, (3, size, size) uint8; None if unreadable."""
        image = self.image(row)
        if image is None:
            warnings.warn(f"{self.files[row]} is broken and left out of its batch", stacklevel=2)
        elif self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                seed_everything(self.seed, epoch, row)
                image = self.augmentation(image)
        else:
            image = self.crop(image)
        return image

    def crop(self, image: Tensor) -> Tensor:
        """Return the center crop."""
        return F.center_crop(image, [self.image_size, self.image_size])

    def image(self, row: int) -> Tensor | None:
        """Return a full image (3, height, width) uint8, resized; None if unreadable."""
        if self.images is not None:
            return self.images[row]
        image = decode(
            self.root, self.files[row], lambda i: resize_shorter_side(i, self.shorter_side)
        )
        return None if isinstance(image, str) else image


# Listing of a folder or zip file.


def list_class_folders(root: Path, fractions: Sequence[float]) -> Listing:
    """List images in folders named after their classes, within split folders or without.

    Args:
        root: Folder or zip file.
        fractions: Fractions of val and test where they have no folders.

    Raises:
        UserError: If the folders are neither splits nor classes.
    """
    files = list_files(root)
    images = {name: Path(name).parts for name in files if is_image(name)}

    def top_folders() -> set[str]:
        return {parts[0] for parts in images.values() if len(parts) > 1}

    def split_of(folder: str) -> str | None:
        return SPLIT_NAMES.get(folder.lower())

    while len({p[0] for p in images.values()}) == 1 and not any(map(split_of, top_folders())):
        images = {name: parts[1:] for name, parts in images.items() if len(parts) > 1}
    tops = sorted(top_folders())
    split_names = [split_of(top) for top in tops]
    has_splits = bool(tops) and (all(split_names) or not set(SPLITS).isdisjoint(tops))
    depth = 2 if has_splits else 1  # number of folders that contain an image
    images = {name: parts for name, parts in images.items() if len(parts) > depth}
    names = sorted(
        {p[depth - 1] for p in images.values() if not has_splits or split_of(p[0]) == "train"}
    )
    unknown = sorted({parts[depth - 1] for parts in images.values()} - set(names))
    problem = None
    if has_splits and not (all(split_names) and "train" in split_names):
        problem = f"it has the folders {', '.join(tops)}; expected train, val and optionally test"
    elif has_splits and len(set(split_names)) < len(split_names):
        problem = f"several of the folders {', '.join(tops)} are the same split"
    elif unknown:
        problem = f"the class {unknown[0]} is in val or test, but not in train"
    elif len(names) < 2:
        problem = "it needs images of at least two classes, as <class>/*.jpg"
    if problem:
        raise UserError(
            f"{root}: {problem}. Put the images of each class into a folder of its name, within "
            f"train/ and val/ if they are split. Extensions: {', '.join(IMG_EXTENSIONS)}"
        )
    ignored = sorted(set(files) - images.keys())
    labeled = [(name, names.index(parts[depth - 1])) for name, parts in images.items()]
    if not has_splits:
        return Listing(names, shuffled(split_randomly(root, labeled, fractions, names)), ignored)
    splits: dict[str, Labeled] = {split: [] for split in SPLITS}
    for name, label in labeled:
        splits[str(split_of(images[name][0]))].append((name, label))
    if not splits["val"]:
        splits |= split_randomly(root, splits["train"], fractions[:1], names)
    return Listing(names, shuffled(splits), ignored)


def list_table(root: Path, table: str, target: Target, fractions: Sequence[float]) -> Listing:
    """List images with the labels of a table.

    Raises:
        UserError: If the table names a file that does not exist.
    """
    rows = read_table(root / table, "image", "label", target)
    files = set(list_files(root))
    if missing := [row for row in rows if row.text not in files]:
        raise UserError(
            f"{missing[0].where}: no file {missing[0].text} in {root} ({len(missing)} such rows)."
        )
    names = ["label"] if target == "number" else class_names_of(rows)
    labeled = [
        (row.text, label)
        for row, label in zip(rows, encode_labels(rows, target, names), strict=True)
    ]
    stratify = names if target == "class" else None
    return Listing(names, shuffled(split_randomly(root, labeled, fractions, stratify)), [])


def split_randomly(
    root: Path,
    labeled: Labeled,
    fractions: Sequence[float],
    class_names: Sequence[str] | None,
) -> dict[str, Labeled]:
    """Split into train and a split per fraction, within each class if `class_names` are given.

    Raises:
        UserError: If a class has too few images for all splits.
    """
    classes = [label for _, label in labeled] if class_names else [0] * len(labeled)
    parts = stratified_split(classes, fractions)
    for part in parts[1:]:
        if missing := sorted(set(classes) - {classes[row] for row in part}):
            kind = f" of the class {class_names[missing[0]]}" if class_names else ""
            raise UserError(
                f"{root}: {classes.count(missing[0])} images{kind} are too few to train, validate "
                "and test with: add images, or leave the class out."
            )
    return {
        split: [labeled[row] for row in part] for split, part in zip(SPLITS, parts, strict=False)
    }


def shuffled(splits: dict[str, Labeled]) -> dict[str, Labeled]:
    """Shuffle each split by a fixed seed, so that a few batches of it have all classes."""
    result = {}
    for split, labeled in splits.items():
        order = torch.randperm(len(labeled), generator=torch.Generator().manual_seed(SPLIT_SEED))
        result[split] = [labeled[row] for row in order.tolist()]
    return result
