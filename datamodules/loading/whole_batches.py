"""Data that fits in memory, served by whole batches: one index operation instead of B items."""

from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import Dataset, Sampler


class BatchTensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors with a common first dimension; an item is the batch of the rows asked for."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, ...]:
        # Nine times as fast as tensor[rows], which is made for more than whole rows.
        return tuple(tensor.index_select(0, rows) for tensor in self.tensors)


class TrainingBatchSampler(Sampler[Tensor]):
    """Which rows each batch of an epoch holds: a pure function of seed, epoch, position and rank.

    The global batch at a position is the same for any number of processes; each takes its share.
    The rows that do not fill a last batch sit out this epoch, others will in the next.

    Args:
        size: Rows of the data set.
        batch_size: Rows of a batch over all processes.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if size < batch_size:
            raise MisconfigurationException(
                f"batch_size {batch_size} is larger than the training split of {size} samples; "
                f"choose --data.batch_size {size} or less."
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.start = 0  # batches that are left out: a run that goes on has seen them

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        # torch's generator on the CPU looks at 32 bits of a seed only: mix both numbers into them.
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(mixed)
        order = torch.randperm(self.size, generator=generator)
        share = self.batch_size // self.world_size
        for position in range(self.start, len(self)):
            start = position * self.batch_size + self.rank * share
            yield order[start : start + share]


class EvaluationBatchSampler(Sampler[Tensor]):
    """Every row exactly once over all processes; the last batch may be smaller.

    All processes have as many batches: where the net is spread over them they compute each one
    together, and whoever came late or not at all would leave the others waiting for ever.

    Args:
        size: Rows of the data set.
        batch_size: Rows of a batch over all processes.
        rank: Number of this process.
        world_size: Number of processes.
        order: The rows, neighbours to be in one batch of all processes, (size,); by default each
            process takes a part of them as they lie.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        order: Tensor | None = None,
    ) -> None:
        self.start = 0
        if order is None:
            rows = torch.arange(size).tensor_split(world_size)[rank]
        else:
            rows = order[rank::world_size]
        number = -(-size // batch_size)
        self.batches = rows.split(batch_size // world_size) if len(rows) else ()
        if len(self.batches) < number:  # those of others have one row more
            self.batches = rows.tensor_split(number)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


def local_batch_size(batch_size: int, world_size: int) -> int:
    """A process's share of the global batch.

    Raises:
        MisconfigurationException: If the batch is empty or can't be shared out evenly.
    """
    if batch_size < 1:
        raise MisconfigurationException(f"batch_size {batch_size} is too small: 1 is the least.")
    if batch_size % world_size:
        lower = max(1, batch_size // world_size) * world_size
        raise MisconfigurationException(
            f"batch_size {batch_size} is global and can't be divided among {world_size} processes; "
            f"choose a multiple of {world_size}, such as --data.batch_size {lower}."
        )
    return batch_size // world_size
