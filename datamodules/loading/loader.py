"""The loader of all training data: whole batches, from any position, each with its random state."""

import random
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class BatchLoader(DataLoader):
    """Serves what the data set gives for each index of the sampler, in this process.

    A run that was interrupted goes on as if it had not been. So the loader has a position, which
    Lightning keeps in the checkpoint and gives back; and it seeds the random numbers of this
    process before each batch, by a function of (seed, epoch, position, rank): augmentation and
    dropout are the same whatever has drawn random numbers before, and differ between processes.

    Args:
        dataset: An item is a whole batch.
        batches: What to ask of it; has the attributes `epoch`, set by Lightning, and `start`: how
            many batches of the epoch are left out.
        seed: Seed of the run; None, for evaluation, seeds nothing.
        rank: Number of this process, see `rank_and_world_size`.
        sampler: Lightning's, which makes some loaders a second time. Another one than `batches`
            says that they are to be the same in every epoch (`trainer.overfit_batches`).
        **others: Of DataLoader, also Lightning's.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batches: Sampler,
        seed: int | None = None,
        rank: int = 0,
        sampler: Sampler | None = None,
        **others: Any,
    ) -> None:
        ours = {
            "batch_size": None,  # the data set yields whole batches; workers would only copy them
            "collate_fn": _as_it_is,
            "pin_memory": torch.cuda.is_available(),
            "generator": torch.Generator(),  # a loader that starts would draw from the net's state
        }
        super().__init__(dataset, sampler=batches, **(ours | others))
        self.batches = batches
        self.same_again = sampler not in (None, batches)
        self.seed = seed
        self.rank = rank
        self.position = 0  # batches of this epoch that were served
        self._resume_at = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Nothing happens before the first batch is asked for: the epoch is set by then."""
        start, self._resume_at = self._resume_at, 0
        batches: Any = self.batches
        batches.start = start
        self.position = start
        epoch = getattr(batches, "epoch", 0)
        if self.same_again:
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
        """The next epoch that is served begins at the saved position."""
        self._resume_at = state["position"]


def rank_and_world_size(trainer: L.Trainer | None) -> tuple[int, int]:
    """The number of this process among those that see different rows, and how many these are.

    Processes that share the work on a row (tensor parallelism) see the same ones.
    """
    told = trainer.distributed_sampler_kwargs if trainer else None
    return (told["rank"], told["num_replicas"]) if told else (0, 1)


def seed_everything(*numbers: int) -> None:
    """Seed torch, NumPy and Python by a mixture of numbers."""
    torch_seed, other = np.random.SeedSequence(numbers).generate_state(2).tolist()
    torch.default_generator.manual_seed(torch_seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(torch_seed)
    np.random.seed(other)  # noqa: NPY002  # what transforms of others may draw from
    random.seed(other)


def _as_it_is(batch: Any) -> Any:
    return batch
