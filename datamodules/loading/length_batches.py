"""Batches of texts that are about as long as each other, so that little of them is padding."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.whole_batches import EvaluationBatchSampler, TrainingBatchSampler

POOL = 50  # batches among whose rows those of like length are brought together


class BucketBatchSampler(TrainingBatchSampler):
    """Which rows each batch of an epoch holds: a pure function of seed, epoch, position and rank.

    All rows are shuffled and cut into pools; the rows of a pool are sorted by length and cut into
    batches; the batches of all pools are shuffled. So a batch holds texts of like length that have
    met by chance, and another epoch's are others. The global batch is the same for any number of
    processes: each takes every `world_size`-th of its rows, and so equally long ones.

    Args:
        lengths: How many tokens each row has, (N,).
        batch_size: Rows of a batch over all processes.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        pool: Batches of a pool, 1 or more: with 1 nothing is brought together.
    """

    def __init__(
        self,
        lengths: Tensor,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = POOL,
    ) -> None:
        super().__init__(len(lengths), batch_size, seed, rank, world_size)
        self.lengths = lengths
        self.pool = pool

    def batches(self) -> Tensor:
        """The rows of every global batch of this epoch, (steps, batch_size)."""
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(mixed)
        used = len(self) * self.batch_size
        order = torch.randperm(self.size, generator=generator)[:used]
        pools = torch.arange(used) // (self.pool * self.batch_size)
        lengths = self.lengths[order]
        by_length = (pools * (lengths.max() + 1) + lengths).argsort(stable=True)
        batches = order[by_length].view(-1, self.batch_size)  # (steps, batch_size)
        return batches[torch.randperm(len(batches), generator=generator)]

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches()[self.start :]:
            yield batch[self.rank :: self.world_size]


class BucketedDataModule(L.LightningDataModule):
    """Serves each split in batches of texts of like length; `predict`, or else `test`, in order.

    A split is a data set with `lengths`, by which the rows that train are sorted, and with
    `source_lengths`, by which those that are judged are: of a text that the net is to answer,
    nothing else is known.
    """

    batch_size: int
    seed: int
    splits: dict[str, Any]

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    def _batches(self, **others: int) -> BucketBatchSampler:
        lengths = self.splits["train"].lengths
        return BucketBatchSampler(lengths, self.batch_size, self.seed, *self._world, **others)

    def train_dataloader(self) -> DataLoader:
        rank, _ = self._world
        return BatchLoader(self.splits["train"], batches=self._batches(), seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        rows = self.splits.get("predict", self.splits["test"])
        return BatchLoader(  # in the order of the file, as the answers are written
            rows, batches=EvaluationBatchSampler(len(rows), self.batch_size, *self._world)
        )

    def _evaluation_loader(self, split: str) -> DataLoader:
        rows = self.splits[split]
        order = rows.source_lengths.argsort(stable=True)  # (N,), the shortest first
        batches = EvaluationBatchSampler(len(rows), self.batch_size, *self._world, order)
        return BatchLoader(rows, batches=batches)


def padding_fraction(lengths: Tensor) -> float:
    """The fraction of padding in batches of texts, each batch as wide as its longest text.

    Args:
        lengths: How many tokens each text has, (batches, batch_size).
    """
    places = lengths.max(dim=1).values.sum() * lengths.shape[1]
    return 1 - (lengths.sum() / places).item()
