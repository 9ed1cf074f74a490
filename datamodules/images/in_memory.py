"""Small pictures with one label each, held in memory: what digits and MNIST have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from datamodules.loading.files import default_data_dir
from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.whole_batches import (
    BatchTensorDataset,
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)

Split = tuple[Tensor, Tensor]  # pictures (N, C, H, W) uint8, labels (N,) int64


class ImageDataModule(L.LightningDataModule):
    """Serve `(inputs, targets)`: normalised float pictures (B, C, H, W) and labels (B,).

    With `batch_mixing` the targets of training are probabilities (B, num_classes).

    Args:
        batch_size: Samples of an optimizer step over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of training samples; train.py links it from `seed_everything`.
        augmentation: Changes training pictures, a whole uint8 batch at a time on its device:
            datamodules.PerImageAffine, any of torchvision.transforms.v2 (which draw
            once a batch), or several in a torchvision.transforms.v2.Compose.
        batch_mixing: Mixes training pictures with each other, after normalisation, and their labels
            to probabilities: torchvision.transforms.v2.MixUp, CutMix, or a RandomChoice of them.
    """

    in_channels: ClassVar[int] = 1
    image_size: ClassVar[int]
    class_names: ClassVar[list[str]]
    mean: ClassVar[list[float]]  # per channel, of the training pictures scaled to [0, 1]
    std: ClassVar[list[float]]

    def __init__(
        self,
        batch_size: int = 128,
        data_dir: str | None = None,
        seed: int = 0,
        augmentation: nn.Module | None = None,
        batch_mixing: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.data_dir = data_dir or default_data_dir()
        self.seed = seed
        self.augmentation = augmentation
        self.batch_mixing = batch_mixing
        self.splits: dict[str, Split] = {}
        self._made: dict[torch.device, Tensor] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a raw picture becomes an input, as plain values for the checkpoint."""
        return {
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """Read the splits `train`, `val` and `test`."""

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if not self.splits:
            self.splits = self.load()

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    def train_dataloader(self) -> DataLoader:
        rank, world_size = self._world
        size = len(self.splits["train"][1])
        batches = TrainingBatchSampler(size, self.batch_size, self.seed, rank, world_size)
        return BatchLoader(
            BatchTensorDataset(*self.splits["train"]), batches=batches, seed=self.seed, rank=rank
        )

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        batches = EvaluationBatchSampler(len(self.splits[split][1]), self.batch_size, *self._world)
        return BatchLoader(BatchTensorDataset(*self.splits[split]), batches=batches)

    def on_after_batch_transfer(self, batch: Split, dataloader_idx: int) -> Split:
        pictures, labels = batch
        training = self.trainer is not None and self.trainer.training
        if training and self.augmentation is not None:
            pictures = self.augmentation(pictures)
        scaled = F.to_dtype(pictures, torch.float32, scale=True)  # (B, C, H, W) in [0, 1]
        mean, std = self._statistics(scaled.device)
        inputs = F.normalize(scaled, mean, std, inplace=True)  # (B, C, H, W)
        if training and self.batch_mixing is not None:
            certain = one_hot(labels, self.num_classes).float()  # (B, num_classes)
            inputs, labels = self.batch_mixing(inputs, certain)
        return inputs, labels

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation on a device: made of numbers in each step, it would be waited for."""
        if device not in self._made:
            self._made[device] = torch.tensor([self.mean, self.std], device=device)  # (2, C)
        mean, std = self._made[device]
        return mean, std
