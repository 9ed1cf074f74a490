"""Small labeled images held in memory: the part that Digits and MNIST share."""

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from datamodules.images.image_files import PredictionImages
from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import hash_arrays
from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.tables import Target, count_classes, readable_label
from datamodules.loading.whole_batches import (
    BatchTensorDataset,
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from engine.errors import UserError

Split = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8, targets (N,) or (N, num_classes)


class ImageDataModule(L.LightningDataModule):
    """Serve `(inputs, targets)`: normalized float images (B, C, H, W) and class indices (B,).

    With `batch_mixing`, training targets are probabilities (B, num_classes).

    Args:
        batch_size: Global batch size, over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of training samples; train.py links it from `seed_everything`.
        augmentation: Transform of training images, applied to a whole uint8 batch on its device:
            datamodules.PerImageAffine, any of torchvision.transforms.v2 (which draw once per
            batch), or several in a torchvision.transforms.v2.Compose.
        batch_mixing: Mix normalized training images and their labels:
            torchvision.transforms.v2.MixUp, CutMix, or a RandomChoice of them.
        balanced_sampling: Sample all classes equally often in training, with replacement.
        predict: Images for `predict` instead of the test split: an image file, a folder (with
            subfolders), a zip file, or a glob pattern; labels are not needed.
    """

    in_channels: ClassVar[int] = 1
    image_size: ClassVar[int]
    class_names: ClassVar[list[str]]
    mean: ClassVar[list[float]]  # per channel, of the training images scaled to [0, 1]
    std: ClassVar[list[float]]
    target: Target = "class"

    def __init__(
        self,
        batch_size: int = 128,
        data_dir: str | None = None,
        seed: int = 0,
        augmentation: nn.Module | None = None,
        batch_mixing: nn.Module | None = None,
        balanced_sampling: bool = False,
        predict: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.data_dir = data_dir or default_data_dir()
        self.seed = seed
        self.augmentation = augmentation
        self.batch_mixing = batch_mixing
        self.balanced_sampling = balanced_sampling
        self.predict = predict
        self.splits: dict[str, Split] = {}
        self._statistics_on: dict[torch.device, Tensor] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes, or of predicted numbers."""
        return len(self.class_names)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How raw images become inputs, as plain values for the checkpoint."""
        return {
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the training images and their labels."""
        return hash_arrays(tensor.numpy() for tensor in self.splits["train"])

    @property
    def class_counts(self) -> list[int]:
        """Number of training images per class, for class weights."""
        return count_classes(self._labels("train"), self.target, self.num_classes)

    @property
    def predict_columns(self) -> dict[str, list[Any]]:
        """Columns that identify each predicted sample in `predictions.csv`."""
        if self._prediction_images is not None:
            return self._prediction_images.columns
        labels = self._labels("test")
        names = [readable_label(label, self.target, self.class_names) for label in labels]
        return {f"true_{self.target}": names}

    def _labels(self, split: str) -> list[Any]:
        """Encoded labels of a split."""
        return self.splits[split][1].tolist()

    @cached_property
    def _prediction_images(self) -> PredictionImages | None:
        if self.predict is None:
            return None
        return PredictionImages(self.predict, self.preprocessing, self.class_names)

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """Read the splits `train`, `val` and `test`."""

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if stage == "predict" and self._prediction_images is not None:
            return
        if not self.splits:
            self.splits = self.load()

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    def _sampling_classes(self, targets: Tensor) -> Tensor | None:
        """Return the classes to balance, or None."""
        if not self.balanced_sampling:
            return None
        if self.target != "class":
            raise UserError("balanced_sampling needs --data.target class.")
        return targets

    def train_dataloader(self) -> DataLoader:
        rank, world_size = self._world
        images, labels = self.splits["train"]
        batches = TrainingBatchSampler(
            len(labels),
            self.batch_size,
            self.seed,
            rank,
            world_size,
            self._sampling_classes(labels),
        )
        dataset = BatchTensorDataset(images, labels)
        return BatchLoader(dataset, batches=batches, seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        images = self._prediction_images
        if images is None:
            return self._evaluation_loader("test")
        batches = EvaluationBatchSampler(len(images), self.batch_size, *self._world)
        return BatchLoader(images, batches=batches)

    def _evaluation_loader(self, split: str) -> DataLoader:
        batches = EvaluationBatchSampler(len(self.splits[split][1]), self.batch_size, *self._world)
        return BatchLoader(BatchTensorDataset(*self.splits[split]), batches=batches)

    def on_after_batch_transfer(self, batch: Split, dataloader_idx: int) -> Split:
        images, labels = batch
        training = self.trainer is not None and self.trainer.training
        if training and self.augmentation is not None:
            images = self.augmentation(images)
        scaled = F.to_dtype(images, torch.float32, scale=True)  # (B, C, H, W) in [0, 1]
        mean, std = self._statistics(scaled.device)
        inputs = F.normalize(scaled, mean, std, inplace=True)  # (B, C, H, W)
        if training and self.batch_mixing is not None:
            targets = one_hot(labels, self.num_classes).float()  # (B, num_classes)
            inputs, labels = self.batch_mixing(inputs, targets)
        return inputs, labels

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and std on a device; creating them in every step would wait for the GPU."""
        if device not in self._statistics_on:
            statistics = torch.tensor([self.mean, self.std], device=device)  # (2, C)
            self._statistics_on[device] = statistics
        mean, std = self._statistics_on[device]
        return mean, std
