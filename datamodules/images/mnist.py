"""MNIST and Fashion-MNIST, with torchvision's files, mirrors and checksums."""

import gzip
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from datamodules.images.in_memory import ImageDataModule, Split
from datamodules.loading.files import obtain
from datamodules.loading.splits import SPLIT_SEED
from engine.errors import UserError

VALIDATION_SIZE = 5_000


class MNIST(ImageDataModule):
    """70,000 grayscale images of 28x28 pixels, handwritten digits (LeCun, Cortes & Burges 1998).

    Train (55,000) and val (5,000) are split from the official training set by a fixed seed; test
    is the official test set, 10,000 images.

    Takes the arguments of ImageDataModule; `data_dir` may already have `MNIST/raw/*.gz`.
    """

    source: ClassVar[type[datasets.MNIST]] = datasets.MNIST
    image_size = 28
    class_names: ClassVar[list[str]] = [str(digit) for digit in range(10)]
    mean: ClassVar[list[float]] = [0.1307]
    std: ClassVar[list[float]] = [0.3081]

    def prepare_data(self) -> None:
        for name, md5 in self.source.resources:
            obtain(
                self._raw / name, [mirror + name for mirror in self.source.mirrors], f"md5:{md5}"
            )

    @property
    def _raw(self) -> Path:
        return Path(self.data_dir) / self.source.__name__ / "raw"

    def load(self) -> dict[str, Split]:
        images = _read_idx(self._raw / "train-images-idx3-ubyte.gz").unsqueeze(1)
        labels = _read_idx(self._raw / "train-labels-idx1-ubyte.gz").long()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
        val, train = order[:VALIDATION_SIZE], order[VALIDATION_SIZE:]
        return {
            "train": (images[train], labels[train]),
            "val": (images[val], labels[val]),
            "test": (
                _read_idx(self._raw / "t10k-images-idx3-ubyte.gz").unsqueeze(1),
                _read_idx(self._raw / "t10k-labels-idx1-ubyte.gz").long(),
            ),
        }


class FashionMNIST(MNIST):
    """70,000 grayscale images of 28x28 pixels, ten kinds of clothing (Xiao et al. 2017).

    Split as MNIST is: 55,000 train, 5,000 val, the official 10,000 test.

    Takes the arguments of ImageDataModule; `data_dir` may already have `FashionMNIST/raw/*.gz`.
    """

    source = datasets.FashionMNIST
    class_names: ClassVar[list[str]] = list(datasets.FashionMNIST.classes)
    mean: ClassVar[list[float]] = [0.2860]
    std: ClassVar[list[float]] = [0.3530]


def _read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of bytes: 0, 0, type, number of dimensions, sizes, data."""
    try:
        data = gzip.decompress(path.read_bytes())
        dimensions = data[3]
        shape = np.frombuffer(data, dtype=">i4", count=dimensions, offset=4)
        values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions)
        return torch.from_numpy(values.reshape(tuple(shape)).copy())
    except (EOFError, OSError, zlib.error, IndexError, ValueError) as error:
        raise UserError(
            f"{path} cannot be unpacked ({error}). Delete it; the next run downloads it again."
        ) from error
