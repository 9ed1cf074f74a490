"""Photographs in folders named after their classes, or in a zip file of such folders."""

import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

from datamodules.images.in_memory import ImageDataModule, Split
from datamodules.loading.loader import BatchLoader, seed_everything
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)

SPLITS = ("train", "val", "test")
SPLIT_SEED = 0  # fixed: which pictures validate must not depend on the seed of a run
MEMORY = 2 * 2**30  # bytes of small pictures that are kept without being asked

Labelled = list[tuple[str, int]]  # names of files, and their classes


class ImageFolder(ImageDataModule):
    """Photographs of any size as `train/<class>/*.jpg`, `val/<class>/*.jpg` and perhaps `test/`.

    Or as `<class>/*.jpg` alone: then each class is split by fixed random numbers. A zip file of
    that is read as it is, nothing is unpacked. Without test pictures nothing is tested.

    A picture is made RGB, scaled until its shorter side has `shorter_side` pixels, and cut to its
    middle `image_size` squared; in training `augmentation` is asked instead of the cut. What it
    draws is decided by the seed, the epoch and the picture: it is the same for any number of
    workers and processes, and in a run that was interrupted and goes on.

    Files that are no pictures by their name (see torchvision's ImageFolder) or by their header are
    named in a warning and left out. Pixels are read at the start where pictures are kept in memory,
    and the same holds for broken ones; else a picture that proves to be broken is named, and left
    out of its batch, which then is smaller.

    Args:
        folder: The folder, or the zip file, in data_dir or anywhere.
        batch_size: Samples of an optimizer step over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of training samples; train.py links it from `seed_everything`.
        augmentation: Makes of a uint8 picture (3, height, width), whose shorter side is
            `shorter_side`, one of `image_size` squared: torchvision.transforms.v2.RandomResizedCrop
            and others, in a torchvision.transforms.v2.Compose. By default training pictures are cut
            as all others.
        batch_mixing: Mixes training pictures with each other, after normalisation, and their labels
            to probabilities: torchvision.transforms.v2.MixUp, CutMix, or a RandomChoice of them.
        image_size: Height and width of what the net is given.
        shorter_side: Height or width, whichever is less, of a picture before it is cut.
        mean: Of each channel, in 0…1; by default ImageNet's, as pretrained nets want it.
        std: Deviation of each channel.
        val_fraction: Share of each class that validates, where there is no folder `val`.
        test_fraction: Share of each class that tests, where the folders are no splits.
        num_workers: Processes that make the batches; 0: the one that trains.
        in_memory: Decode once, with all cores, and keep 8-bit pictures of `shorter_side`. By
            default where that takes less than 2 GB.

    Raises:
        ValueError: If a number is out of its range.
    """

    in_channels = 3

    def __init__(
        self,
        folder: str,
        batch_size: int = 32,
        data_dir: str | None = None,
        seed: int = 0,
        augmentation: nn.Module | None = None,
        batch_mixing: nn.Module | None = None,
        image_size: int = 224,
        shorter_side: int = 256,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        num_workers: int = 0,
        in_memory: bool | None = None,
    ) -> None:
        # Augmentation is not the parent's, of whole batches: photographs differ in shape.
        super().__init__(batch_size, data_dir, seed, None, batch_mixing)
        for complaint, justified in {
            f"shorter_side {shorter_side} is less than image_size {image_size}": (
                shorter_side < image_size
            ),
            f"image_size must be at least 1, not {image_size}": image_size < 1,
            "mean and std must have three numbers, one for red, green and blue": (
                not len(mean) == len(std) == 3
            ),
            f"val_fraction and test_fraction must be above 0 and below 1 together, not "
            f"{val_fraction} and {test_fraction}": (
                min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1
            ),
            f"num_workers must be 0 or more, not {num_workers}": num_workers < 0,
        }.items():
            if justified:
                raise ValueError(f"ImageFolder: {complaint}.")
        self.folder = folder
        self.image_augmentation = augmentation
        self.image_size = image_size  # type: ignore[misc]  # the parent's data sets know theirs
        self.shorter_side = shorter_side
        self.mean, self.std = list(mean), list(std)  # type: ignore[misc]
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.num_workers = num_workers
        self.in_memory = in_memory
        self.photographs: dict[str, Photographs] = {}

    @property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """The names of the folders, sorted."""
        return self._listing[0]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a raw picture becomes an input, as plain values for the checkpoint."""
        return super().preprocessing | {"shorter_side": self.shorter_side}

    @property
    def root(self) -> Path:
        """The folder or zip file."""
        for path in (Path(self.data_dir, self.folder), Path(self.folder)):
            if path.exists():
                return path
        raise MisconfigurationException(
            f"there are no pictures {self.folder}: neither in the data folder "
            f"{Path(self.data_dir).resolve()} nor in {Path.cwd()}. Put a folder or zip file with "
            "train/<class>/*.jpg and val/<class>/*.jpg, or <class>/*.jpg, there; name it by "
            "--data.folder, its parent by DATA_DIR=… or --data.data_dir; or start with a config "
            "that needs no download: --config configs/digits/cnn.yaml"
        )

    @cached_property
    def _listing(self) -> tuple[list[str], dict[str, Labelled], list[str]]:
        return listing(self.root, self.val_fraction, self.test_fraction)

    def prepare_data(self) -> None:
        self._listing  # noqa: B018  # the error, if there is one, before any process is started

    def load(self) -> dict[str, Split]:
        raise NotImplementedError("photographs differ in shape: they are no tensor of a split")

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if self.photographs:
            return
        _names, splits, ignored = self._listing
        files = [file for split in splits.values() for file, _ in split]
        kept = self.in_memory
        if kept is None:
            # 4:3 is the shape of most photographs.
            kept = len(files) * 3 * self.shorter_side**2 * 4 / 3 <= MEMORY
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
        Image.init()  # the formats, which threads would load over each other
        with ThreadPoolExecutor(workers) as pool:  # decoders let go of Python's lock
            look = self._decode if kept else self._peek
            found = dict(zip(files, pool.map(look, files), strict=True))
        broken = sorted(name for name, picture in found.items() if picture is None)
        if ignored or broken:
            told = [
                *(f"{name} (no picture)" for name in ignored),
                *(f"{n} (broken)" for n in broken),
            ]
            rank_zero_warn(
                f"{self.root}: {len(told)} file{'s are' if len(told) > 1 else ' is'} left out: "
                f"{', '.join(told[:20])}{', …' if len(told) > 20 else ''}"
            )
        for split, labelled in splits.items():
            whole = [(file, label) for file, label in labelled if found[file] is not None]
            if labelled and not whole:
                raise MisconfigurationException(f"{self.root}: no picture of {split} can be read.")
            pictures: Any = [found[file] for file, _ in whole] if kept else None
            self.photographs[split] = Photographs(
                self.root, whole, pictures, self.shorter_side, self.image_size
            )
        self.photographs["train"].augmentation = self.image_augmentation
        self.photographs["train"].seed = self.seed
        if self.image_augmentation is not None:
            self._check_augmentation()

    def _decode(self, file: str) -> Tensor | None:
        return decode(self.root, file, self.shorter_side)

    def _peek(self, file: str) -> bool | None:
        try:
            Image.open(BytesIO(read(self.root, file))).close()
        except Exception:  # as `decode`
            return None
        return True

    def _check_augmentation(self) -> None:
        size = (3, self.image_size, self.image_size)
        example = torch.zeros(3, self.shorter_side, self.shorter_side * 4 // 3, dtype=torch.uint8)
        with torch.random.fork_rng(devices=[]):
            made = self.image_augmentation(example)  # type: ignore[misc]
        if made.shape != size or made.dtype != torch.uint8:
            raise MisconfigurationException(
                f"data.augmentation makes pictures of shape {tuple(made.shape)} ({made.dtype}), "
                f"and the net is given {size} (torch.uint8): set its size to data.image_size, and "
                "leave scaling and normalisation out."
            )

    def augmented_examples(self, number: int, draws: int) -> tuple[Split, list[Split]]:
        """Training pictures as they are but cut, and what the net is given in their first epochs.

        Args:
            number: Pictures, at most those of a batch.
            draws: Batches of the same pictures.
        """
        data = self.photographs["train"]
        _, batch = next(iter(EpochBatchSampler(len(data), self.batch_size, self.seed)))
        rows = [row for row in batch.tolist() if data.picture(row) is not None][:number]
        labels = data.labels[rows]
        plain = [data.cut(data.picture(row)) for row in rows]  # type: ignore[arg-type]
        views = [torch.stack([data.view(row, epoch) for row in rows]) for epoch in range(draws)]  # type: ignore[misc]
        given = [self.on_after_batch_transfer((pictures, labels), 0) for pictures in views]
        return (torch.stack(plain), labels), given

    def train_dataloader(self) -> DataLoader:
        rank, world_size = self._world
        size = len(self.photographs["train"])
        batches = EpochBatchSampler(size, self.batch_size, self.seed, rank, world_size)
        return self._loader("train", batches=batches, seed=self.seed, rank=rank)

    @property
    def has_test_split(self) -> bool:
        """Whether there are pictures to test on."""
        return bool(self._listing[1]["test"])

    def _evaluation_loader(self, split: str) -> DataLoader:
        if not len(self.photographs[split]):
            raise MisconfigurationException(
                f"{self.root} has no {split} pictures: look at those of val, by train.py validate, "
                "or by scripts.evaluate --split val."
            )
        size = len(self.photographs[split])
        return self._loader(
            split, batches=EvaluationBatchSampler(size, self.batch_size, *self._world)
        )

    def _loader(self, split: str, **more: Any) -> DataLoader:
        return BatchLoader(self.photographs[split], num_workers=self.num_workers, **more)


class EpochBatchSampler(TrainingBatchSampler):
    """Says with the rows in which epoch they are drawn: a worker process can't know."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:  # type: ignore[override]
        return ((self.epoch, rows) for rows in super().__iter__())


class Photographs(Dataset[Split]):
    """A split; an item is a batch: pictures (B, 3, size, size) uint8 and labels (B,).

    Args:
        root: Folder or zip file.
        labelled: Names of files and their classes.
        pictures: All of them, decoded; None: they are decoded when they are asked for.
        shorter_side: See ImageFolder.
        image_size: See ImageFolder.
    """

    def __init__(
        self,
        root: Path,
        labelled: Labelled,
        pictures: Sequence[Tensor] | None,
        shorter_side: int,
        image_size: int,
    ) -> None:
        self.root, self.pictures = root, pictures
        self.files = [file for file, _ in labelled]
        self.labels = torch.tensor([label for _, label in labelled], dtype=torch.long)
        self.shorter_side, self.image_size = shorter_side, image_size
        self.augmentation: nn.Module | None = None
        self.seed = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, asked: Tensor | tuple[int, Tensor]) -> Split:
        epoch, rows = asked if isinstance(asked, tuple) else (0, asked)
        made = {
            row: picture for row in rows.tolist() if (picture := self.view(row, epoch)) is not None
        }
        if len(rows) and not made:
            raise MisconfigurationException(
                f"{self.root}: no picture of a batch can be read, {self.files[rows[0]]} for one: "
                "take broken ones out, or let batches be larger by --data.batch_size."
            )
        none = torch.empty(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
        return torch.stack([*made.values()]) if made else none, self.labels[list(made)]

    def view(self, row: int, epoch: int) -> Tensor | None:
        """A picture as the net is given it, (3, size, size) uint8; None where it is broken."""
        picture = self.picture(row)
        if picture is None:
            warnings.warn(f"{self.files[row]} is broken and left out of its batch", stacklevel=2)
        elif self.augmentation is not None:
            with torch.random.fork_rng(devices=[]):
                seed_everything(self.seed, epoch, row)
                picture = self.augmentation(picture)
        else:
            picture = self.cut(picture)
        return picture

    def cut(self, picture: Tensor) -> Tensor:
        """The square in the middle."""
        return F.center_crop(picture, [self.image_size, self.image_size])

    def picture(self, row: int) -> Tensor | None:
        """A whole picture (3, height, width) uint8, its shorter side scaled."""
        if self.pictures is not None:
            return self.pictures[row]
        return decode(self.root, self.files[row], self.shorter_side)


# What is in a folder or zip file.


def listing(
    root: Path, val_fraction: float, test_fraction: float
) -> tuple[list[str], dict[str, Labelled], list[str]]:
    """Class names, the files of each split with their classes, and files that are no pictures.

    Raises:
        MisconfigurationException: If the folders are neither splits nor classes.
    """
    files = {name: Path(name).parts for name in file_names(root)}
    files = {name: parts for name, parts in files.items() if not any(map(hidden, parts))}
    pictures = {n: parts for n, parts in files.items() if n.lower().endswith(IMG_EXTENSIONS)}
    while len(around := {parts[0] for parts in pictures.values()}) == 1 and not around & set(
        SPLITS
    ):
        pictures = {name: parts[1:] for name, parts in pictures.items() if len(parts) > 1}
    tops = {parts[0] for parts in pictures.values() if len(parts) > 1}
    depth = 2 if tops & set(SPLITS) else 1  # folders that a picture is in
    pictures = {name: parts for name, parts in pictures.items() if len(parts) > depth}
    ignored = sorted(files.keys() - pictures.keys())
    names = sorted({p[depth - 1] for p in pictures.values() if depth == 1 or p[0] == "train"})
    complaint = None
    if depth == 2 and not {"train"} <= tops <= set(SPLITS):
        told = ", ".join(sorted(tops))
        complaint = f"it has the folders {told}, and train, val and perhaps test are expected"
    elif strange := sorted({p[depth - 1] for p in pictures.values()} - set(names)):
        complaint = f"the class {strange[0]} is in val or test, but not in train"
    elif len(names) < 2:
        complaint = "it must hold pictures of two classes or more, as <class>/*.jpg"
    if complaint:
        raise MisconfigurationException(
            f"{root}: {complaint}. The pictures of a class stand in a folder of its name, these in "
            f"train/ and val/ where you split them. Endings of pictures: "
            f"{', '.join(IMG_EXTENSIONS)}"
        )
    labelled = [(name, parts[0], names.index(parts[depth - 1])) for name, parts in pictures.items()]
    if depth == 1:
        splits = parted([(n, k) for n, _, k in labelled], (val_fraction, test_fraction), root)
    else:
        splits = {split: [(n, k) for n, top, k in labelled if top == split] for split in SPLITS}
        if not splits["val"]:
            splits |= parted(splits["train"], (val_fraction,), root)
    return names, {split: mixed(labelled) for split, labelled in splits.items()}, ignored


def mixed(labelled: Labelled) -> Labelled:
    """In a fixed random order: a few batches of a split then show all its classes."""
    order = torch.randperm(len(labelled), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return [labelled[row] for row in order.tolist()]


def parted(labelled: Labelled, fractions: Sequence[float], root: Path) -> dict[str, Labelled]:
    """A share of each class for val, and one for test, the rest for train; always the same."""
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    splits: dict[str, Labelled] = {split: [] for split in SPLITS[: 1 + len(fractions)]}
    for label in sorted({label for _, label in labelled}):
        mine = [name for name, other in labelled if other == label]
        counts = [max(1, round(fraction * len(mine))) for fraction in fractions]
        if sum(counts) >= len(mine):
            raise MisconfigurationException(
                f"{root}: {len(mine)} pictures like {mine[0]} are too few to train, validate and "
                "test with: add some, or leave the class out."
            )
        order = torch.randperm(len(mine), generator=generator).split(
            [len(mine) - sum(counts), *counts]
        )
        for split, rows in zip(splits, order, strict=True):
            splits[split] += [(mine[row], label) for row in sorted(rows.tolist())]
    return splits


def hidden(part: str) -> bool:
    """What systems leave in folders."""
    return part.startswith(".") or part in ("__MACOSX", "Thumbs.db")


def file_names(root: Path) -> list[str]:
    """All files, sorted, as paths from the root."""
    if root.is_dir():
        found, seen = [], {os.path.realpath(root)}
        for folder, subfolders, names in os.walk(root, followlinks=True):
            found += [Path(folder, name).relative_to(root).as_posix() for name in names]
            real = {name: os.path.realpath(Path(folder, name)) for name in subfolders}
            subfolders[:] = [name for name in subfolders if real[name] not in seen]
            seen.update(real.values())  # a link may lead back to where it stands
        return sorted(found)
    return sorted(
        entry.filename for entry in opened(root, os.getpid()).infolist() if not entry.is_dir()
    )


def read(root: Path, file: str) -> bytes:
    """The bytes of a file."""
    return (root / file).read_bytes() if root.is_dir() else opened(root, os.getpid()).read(file)


@lru_cache(maxsize=8)
def opened(path: Path, process: int) -> zipfile.ZipFile:
    """A zip file, open. Processes must not share one: they would move each other's place in it."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise MisconfigurationException(
            f"{path} is neither a folder nor a whole zip file ({error}): fetch it anew."
        ) from error


def decode(root: Path, file: str, shorter_side: int) -> Tensor | None:
    """A picture (3, height, width) uint8; None if it is broken."""
    try:
        picture = colours(Image.open(BytesIO(read(root, file))))
    except Exception:  # on bytes of unknown origin decoders raise whatever they like
        return None
    return F.resize(F.pil_to_tensor(picture), [shorter_side], antialias=True)


def colours(picture: Image.Image) -> Image.Image:
    """A picture in RGB, upright; of 16 bits a pixel the upper 8, where Pillow would cut off.

    Raises:
        ValueError: If its pixels are floats, of which nobody knows what is white.
    """
    if picture.mode == "F":
        raise ValueError("pixels are floats")
    if picture.mode.startswith("I"):  # I;16, I;16B, and I, where 16 bits stand in 32
        picture = Image.fromarray((np.asarray(picture) // 256).clip(0, 255).astype(np.uint8))
    return ImageOps.exif_transpose(picture).convert("RGB")
