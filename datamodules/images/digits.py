"""Handwritten digits that come with scikit-learn: needs no download."""

from typing import ClassVar

import torch

from datamodules.images.in_memory import ImageDataModule, Split
from datamodules.loading.splits import SPLIT_SEED


class Digits(ImageDataModule):
    """1,797 grayscale images of 8x8 pixels, digits 0 to 9; comes with scikit-learn.

    The test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998). It
    has no official split: 1,257 train, 180 val, 360 test by a fixed permutation.

    Takes the arguments of ImageDataModule.
    """

    image_size = 8
    class_names: ClassVar[list[str]] = [str(digit) for digit in range(10)]
    mean: ClassVar[list[float]] = [0.3053]
    std: ClassVar[list[float]] = [0.3760]

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits  # takes a second to import

        data = load_digits()
        sixteenths = torch.from_numpy(data.images)  # (1797, 8, 8) in 0…16
        images = (sixteenths * 255 / 16).round().to(torch.uint8).unsqueeze(1)  # (N, 1, 8, 8)
        labels = torch.from_numpy(data.target).long()  # (N,)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
        rows = dict(zip(("train", "val", "test"), order.split([1257, 180, 360]), strict=True))
        return {split: (images[row], labels[row]) for split, row in rows.items()}
