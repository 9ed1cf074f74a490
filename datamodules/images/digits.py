"""Handwritten digits that come with scikit-learn: the data set that needs no download."""

from typing import ClassVar

import torch

from datamodules.images.in_memory import ImageDataModule, Split


class Digits(ImageDataModule):
    """1,797 grey pictures of 8x8 pixels, digits 0 to 9.

    They are the test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin & Kaynak
    1998). There is no official split: 1,257 train, 180 val, 360 test by a fixed permutation.

    Args:
        batch_size: Samples of an optimizer step over all processes.
        data_dir: Not needed here: the pictures come with scikit-learn.
        seed: Seed of the order of training samples; train.py links it from `seed_everything`.
        augmentation: Changes training pictures, a whole uint8 batch at a time on its device:
            datamodules.PerImageAffine, any of torchvision.transforms.v2 (which draw
            once a batch), or several in a torchvision.transforms.v2.Compose.
        batch_mixing: Mixes training pictures with each other, after normalisation, and their labels
            to probabilities: torchvision.transforms.v2.MixUp, CutMix, or a RandomChoice of them.
    """

    image_size = 8
    class_names: ClassVar[list[str]] = [str(digit) for digit in range(10)]
    mean: ClassVar[list[float]] = [0.3053]
    std: ClassVar[list[float]] = [0.3760]

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits  # takes a second; only those who train on it wait

        data = load_digits()
        sixteenths = torch.from_numpy(data.images)  # (1797, 8, 8) in 0…16
        pictures = (sixteenths * 255 / 16).round().to(torch.uint8).unsqueeze(1)  # (N, 1, 8, 8)
        labels = torch.from_numpy(data.target).long()  # (N,)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        rows = dict(zip(("train", "val", "test"), order.split([1257, 180, 360]), strict=True))
        return {split: (pictures[row], labels[row]) for split, row in rows.items()}
