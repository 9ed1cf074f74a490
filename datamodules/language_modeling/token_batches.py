"""Batches from a long token sequence: random crops for training, all of it for validation.

A batch is (inputs, targets); the target at position t is the input at t + 1, the next token.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from datamodules.loading.loader import BatchLoader
from preprocessing.special_tokens import IGNORE_INDEX

Batch = tuple[Tensor, Tensor]


class TokenSequence(Protocol):
    """A long sequence of tokens: a numpy array, or an object that is sliced like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class RandomCrops(Dataset[Batch]):
    """The batch of a step: crops at random positions, a pure function of (seed, step).

    Every process draws the positions of the global batch and takes its shard of the rows. The
    global batch therefore does not depend on the world size, and any step can be computed first.
    """

    def __init__(
        self,
        tokens: TokenSequence,
        context: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.tokens = tokens
        self.context = context
        self.steps = max(1, len(tokens) // (batch_size * context))
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        rows = batch_size // world_size
        self.rows = slice(rank * rows, (rank + 1) * rows)

    def __len__(self) -> int:
        """Steps per epoch: an epoch has as many tokens as the text."""
        return self.steps

    def tokens_at(self, step: int) -> TokenSequence:
        """Return the tokens that the crops of a step come from."""
        return self.tokens

    def __getitem__(self, step: int) -> Batch:
        tokens = self.tokens_at(step)
        generator = np.random.default_rng((self.seed, step))
        starts = generator.integers(len(tokens) - self.context, size=self.batch_size)  # (B,)
        crops = np.stack(
            [tokens[start : start + self.context + 1] for start in starts[self.rows].tolist()]
        )  # (B, T + 1)
        inputs, targets = crops[:, :-1].astype(np.int64), crops[:, 1:].astype(np.int64)
        return torch.from_numpy(inputs), torch.from_numpy(targets)  # (B, T), (B, T)


class SequentialWindows(Dataset[Batch]):
    """The full text in adjacent windows: every token but the first is a target exactly once.

    All batches have the same shape, so that a compiled net is not recompiled; positions beyond the
    text have the target IGNORE_INDEX. The rows of a batch are distributed evenly over the
    processes: a process may have none in the last batch, but all have the same number of batches.
    """

    def __init__(
        self,
        tokens: TokenSequence,
        context: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.tokens = tokens
        self.context = context
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.windows = -(-(len(tokens) - 1) // context)  # rounded up

    def __len__(self) -> int:
        return -(-self.windows // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        first = index * self.batch_size
        rows = min(self.batch_size, self.windows - first)
        start = (first + rows * self.rank // self.world_size) * self.context
        stop = (first + rows * (self.rank + 1) // self.world_size) * self.context
        text = torch.from_numpy(self.tokens[start : stop + 1].astype(np.int64))
        shape = (self.batch_size // self.world_size, self.context)
        inputs = torch.zeros(shape, dtype=torch.int64)  # (B, T)
        targets = torch.full(shape, IGNORE_INDEX)  # (B, T)
        inputs.view(-1)[: len(text) - 1] = text[:-1]
        targets.view(-1)[: len(text) - 1] = text[1:]
        return inputs, targets


class StepSampler(DistributedSampler[int]):
    """Sample the step numbers of an epoch, counted over all epochs.

    Subclass DistributedSampler only so that Lightning does not wrap it: every process takes every
    step, and the dataset selects its rows.
    """

    start = 0  # steps of the epoch to skip, set when a run is resumed

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self)
        return iter(range(first + self.start, first + len(self)))


def train_loader(batches: Dataset, seed: int, rank: int) -> DataLoader:
    """Return a loader of the item of every step."""
    sampler = StepSampler(batches, num_replicas=1, rank=0, shuffle=False)
    return BatchLoader(batches, batches=sampler, seed=seed, rank=rank)


def val_loader(batches: Dataset) -> DataLoader:
    """Return a loader of all items, in order."""
    sampler: DistributedSampler = DistributedSampler(batches, num_replicas=1, rank=0, shuffle=False)
    return BatchLoader(batches, batches=sampler)
