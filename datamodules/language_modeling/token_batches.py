"""Batches from a long row of tokens: random crops of it to train, the whole of it to validate.

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


class Tokens(Protocol):
    """A long row of tokens: a numpy array, or what reads like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class RandomCrops(Dataset[Batch]):
    """The batch of step s: crops of the text at places that are a function of (seed, s) alone.

    Every process draws the places of the whole batch and takes its share of the rows, so that a
    step is the same however many processes there are, and a run goes on where it stopped.
    """

    def __init__(
        self,
        tokens: Tokens,
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
        """The steps of an epoch, in which as many tokens are seen as the text has."""
        return self.steps

    def row(self, step: int) -> Tokens:
        """What the crops of a step are taken from."""
        return self.tokens

    def __getitem__(self, step: int) -> Batch:
        tokens = self.row(step)
        draw = np.random.default_rng((self.seed, step))
        starts = draw.integers(len(tokens) - self.context, size=self.batch_size)  # (B,)
        crops = np.stack(
            [tokens[start : start + self.context + 1] for start in starts[self.rows].tolist()]
        )  # (B, T + 1)
        inputs, targets = crops[:, :-1].astype(np.int64), crops[:, 1:].astype(np.int64)
        return torch.from_numpy(inputs), torch.from_numpy(targets)  # (B, T), (B, T)


class AllWindows(Dataset[Batch]):
    """The whole text in windows side by side: every token but the first is a target exactly once.

    All batches have one shape, which spares a compiled net its recompilation. What the text does
    not fill has the target -100. The rows of a batch are dealt evenly to the processes; one may
    have none at all in the last batch, but every process has as many batches as the others.
    """

    def __init__(
        self,
        tokens: Tokens,
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


class Steps(DistributedSampler[int]):
    """The numbers of an epoch's steps, counted on from the epochs before.

    It is a DistributedSampler only in name, so that Lightning leaves it in place: every process
    takes every step, and the data set gives it its rows.
    """

    start = 0  # steps of the epoch that are left out: a run that goes on has seen them

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self)
        return iter(range(first + self.start, first + len(self)))


def train_loader(batches: Dataset, seed: int, rank: int) -> DataLoader:
    """Serves the item of every step: a pure function of (seed, step)."""
    sampler = Steps(batches, num_replicas=1, rank=0, shuffle=False)
    return BatchLoader(batches, batches=sampler, seed=seed, rank=rank)


def val_loader(batches: Dataset) -> DataLoader:
    """Serves every item, in order."""
    sampler: DistributedSampler = DistributedSampler(batches, num_replicas=1, rank=0, shuffle=False)
    return BatchLoader(batches, batches=sampler)
