"""In-memory data served as whole batches: one index operation instead of B items."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from engine.errors import UserError


class BatchTensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors with a common first dimension; an item is the batch of the given rows."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, ...]:
        # index_select is about 9x faster than advanced indexing for whole rows.
        return tuple(tensor.index_select(0, rows) for tensor in self.tensors)


class TrainingBatchSampler(Sampler[Tensor]):
    """Sample training batches as a pure function of (seed, epoch, position, rank).

    The global batch at each position does not depend on the world size; every rank takes its shard.
    The incomplete last batch is dropped; since the order changes every epoch, other samples are
    dropped next time. A data set smaller than the batch gives one smaller batch.

    Args:
        size: Number of samples.
        batch_size: Global batch size, over all processes.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
        classes: Class of each sample, (size,): sample all classes equally often, with replacement.
            By default every sample is drawn once per epoch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        classes: Tensor | None = None,
    ) -> None:
        if size < batch_size:
            if size < world_size:
                raise UserError(
                    f"The training split has {size} samples for {world_size} processes: "
                    "train with fewer --trainer.devices or more data."
                )
            smaller = size - size % world_size
            _warn_once(
                f"batch_size {batch_size} is larger than the training split of {size} samples: "
                f"training with one batch of {smaller} per epoch."
            )
            batch_size = smaller
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.classes = classes
        self.epoch = 0
        self.start = 0  # first batch to serve; a resumed run has trained on those before

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def generator(self) -> torch.Generator:
        """Return the random generator of this epoch."""
        # torch's CPU generator uses only 32 bits of a seed: mix both numbers into them.
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        return torch.Generator().manual_seed(mixed)

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw the samples of this epoch, (size,)."""
        if self.classes is None:
            return torch.randperm(self.size, generator=generator)
        weights = 1.0 / self.classes.bincount()[self.classes].double()  # (size,)
        return torch.multinomial(weights, self.size, replacement=True, generator=generator)

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        order = self.order(self.generator())
        local_size = self.batch_size // self.world_size
        for position in range(self.start, len(self)):
            start = position * self.batch_size + self.rank * local_size
            yield order[start : start + local_size]


@lru_cache
def _warn_once(message: str) -> None:
    """Warn once per process; samplers are created several times."""
    rank_zero_warn(message)


class EvaluationBatchSampler(Sampler[Tensor]):
    """Serve every sample exactly once over all processes; the last batch may be smaller.

    All processes get the same number of batches: a sharded network needs all of them for each
    forward pass, and a missing one would make the others wait forever.

    Args:
        size: Number of samples.
        batch_size: Global batch size, over all processes.
        rank: Rank of this process.
        world_size: Number of processes.
        order: Order of the samples, (size,), dealt out to the processes in turn; by default each
            process takes a contiguous part.
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
        num_batches = -(-size // batch_size)
        self.batches = rows.split(batch_size // world_size) if len(rows) else ()
        if len(self.batches) < num_batches:  # other ranks have one row more
            self.batches = rows.tensor_split(num_batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


def local_batch_size(batch_size: int, world_size: int) -> int:
    """Return the batch size of each process.

    Raises:
        UserError: If the global batch is empty or not divisible by the number of processes.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    if batch_size % world_size:
        lower = max(1, batch_size // world_size) * world_size
        raise UserError(
            f"batch_size {batch_size} is global and not divisible by {world_size} processes: "
            f"choose a multiple of {world_size}, such as --data.batch_size {lower}."
        )
    return batch_size // world_size
