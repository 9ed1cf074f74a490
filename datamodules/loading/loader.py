"""DataLoader of whole batches that resumes from any position with the right random state."""

import random
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class BatchLoader(DataLoader):
    """Serve the data set's item for each index of the sampler, in this process.

    An interrupted run resumes bit for bit: the loader's position is saved in the checkpoint by
    Lightning, and the random generators of this process are seeded before each batch by
    (seed, epoch, position, rank). Augmentation and dropout do not depend on earlier random numbers
    and differ between processes.

    Args:
        dataset: An item is a whole batch.
        batches: Sampler of the data set's indices, with the attributes `epoch`, set by Lightning,
            and `start`, the number of batches to skip.
        seed: Seed of the run; None, for evaluation, seeds nothing.
        rank: Rank of this process, see `rank_and_world_size`.
        sampler: Passed by Lightning when it re-creates a loader. A sampler other than `batches`
            means that every epoch is the same (`trainer.overfit_batches`).
        **kwargs: Arguments of DataLoader, some of them passed by Lightning.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batches: Sampler,
        seed: int | None = None,
        rank: int = 0,
        sampler: Sampler | None = None,
        **kwargs: Any,
    ) -> None:
        defaults = {
            "batch_size": None,  # the data set yields whole batches; workers would only copy them
            "collate_fn": _identity,
            "pin_memory": torch.cuda.is_available(),
            "generator": torch.Generator(),  # else starting the loader advances torch's global one
        }
        super().__init__(dataset, sampler=batches, **(defaults | kwargs))
        self.batches = batches
        self.repeats_epoch = sampler not in (None, batches)
        self.seed = seed
        self.rank = rank
        self.position = 0  # batches of this epoch served so far
        self._resume_at = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Start lazily, at the first batch: only then has Lightning set the epoch."""
        start, self._resume_at = self._resume_at, 0
        batches: Any = self.batches
        batches.start = start
        self.position = start
        epoch = getattr(batches, "epoch", 0)
        if self.repeats_epoch:
            batches.epoch = 0  # until Lightning sets the next one
        for batch in super().__iter__():
            if self.seed is not None:
                seed_everything(self.seed, epoch, self.position, self.rank)
            self.position += 1
            yield batch
        batches.start = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next epoch at the saved position."""
        self._resume_at = state["position"]


def rank_and_world_size(trainer: L.Trainer | None) -> tuple[int, int]:
    """Return the data-parallel rank of this process and the number of data-parallel ranks.

    Tensor-parallel processes, which share the computation of a batch, have the same rank.
    """
    kwargs = trainer.distributed_sampler_kwargs if trainer else None
    return (kwargs["rank"], kwargs["num_replicas"]) if kwargs else (0, 1)


def seed_everything(*numbers: int) -> None:
    """Seed torch, NumPy and Python with a mixture of numbers."""
    torch_seed, numpy_seed = np.random.SeedSequence(numbers).generate_state(2).tolist()
    torch.default_generator.manual_seed(torch_seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(torch_seed)
    np.random.seed(numpy_seed)  # noqa: NPY002  # third-party transforms use the global generator
    random.seed(numpy_seed)


def _identity(batch: Any) -> Any:
    return batch
