"""Batches of texts of similar length, which need little padding."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.whole_batches import EvaluationBatchSampler, TrainingBatchSampler

POOL = 50  # batches per pool, within which texts are sorted by length


class BucketBatchSampler(TrainingBatchSampler):
    """Sample batches of similar length as a pure function of (seed, epoch, position, rank).

    Shuffle all samples and cut them into pools, sort each pool by length and cut it into batches,
    then shuffle the batches of all pools. The global batch does not depend on the world size; each
    rank takes every `world_size`-th sample of it, so that all ranks have about the same work.

    Args:
        lengths: Number of tokens of each sample, (N,).
        batch_size: Global batch size, over all processes.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
        pool: Batches per pool, at least 1; with 1 the lengths are ignored.
        classes: Class of each sample, (N,), to sample all classes equally often.
    """

    def __init__(
        self,
        lengths: Tensor,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = POOL,
        classes: Tensor | None = None,
    ) -> None:
        super().__init__(len(lengths), batch_size, seed, rank, world_size, classes)
        self.lengths = lengths
        self.pool = pool

    def batches(self) -> Tensor:
        """Return the samples of every global batch of this epoch, (steps, batch_size)."""
        generator = self.generator()
        used = len(self) * self.batch_size
        order = self.order(generator)[:used]
        pools = torch.arange(used) // (self.pool * self.batch_size)
        lengths = self.lengths[order]
        by_length = (pools * (lengths.max() + 1) + lengths).argsort(stable=True)
        batches = order[by_length].view(-1, self.batch_size)  # (steps, batch_size)
        return batches[torch.randperm(len(batches), generator=generator)]

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches()[self.start :]:
            yield batch[self.rank :: self.world_size]


class BucketedDataModule(L.LightningDataModule):
    """Serve each split in batches of texts of similar length; `predict` in the order of the file.

    A split is a data set with `lengths`, by which training samples are bucketed, and
    `source_lengths`, by which evaluation samples are: the length of a target that the model must
    generate is unknown. Without a split `predict`, `test` is predicted.
    """

    batch_size: int
    seed: int
    splits: dict[str, Any]

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    def _batches(self, **kwargs: Any) -> BucketBatchSampler:
        lengths = self.splits["train"].lengths
        return BucketBatchSampler(lengths, self.batch_size, self.seed, *self._world, **kwargs)

    def train_dataloader(self) -> DataLoader:
        rank, _ = self._world
        return BatchLoader(self.splits["train"], batches=self._batches(), seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        rows = self.splits["predict"] if "predict" in self.splits else self.splits["test"]
        return BatchLoader(  # in the order of the file, as the predictions are written
            rows, batches=EvaluationBatchSampler(len(rows), self.batch_size, *self._world)
        )

    def evaluation_rows(self, split: str) -> list[list[int]]:
        """Return the rows of each batch of `val_dataloader` or `test_dataloader` on this rank."""
        loader: Any = self._evaluation_loader(split)
        return [batch.tolist() for batch in loader.batches]

    def _evaluation_loader(self, split: str) -> DataLoader:
        rows = self.splits[split]
        order = rows.source_lengths.argsort(stable=True)  # (N,), shortest first
        batches = EvaluationBatchSampler(len(rows), self.batch_size, *self._world, order)
        return BatchLoader(rows, batches=batches)


def padding_fraction(lengths: Tensor) -> float:
    """Return the fraction of padding in batches that are padded to their longest text.

    Args:
        lengths: Number of tokens of each text, (batches, batch_size).
    """
    padded_tokens = lengths.max(dim=1).values.sum() * lengths.shape[1]
    return 1 - (lengths.sum() / padded_tokens).item()
