"""Co-occurrence counts of words for GloVe.

Pennington et al. 2014, section 4.2: two words at a distance d ≤ window in the same text add 1 / d,
in either order.
"""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loader import BatchLoader
from datamodules.loading.ragged import RaggedTokens
from datamodules.loading.whole_batches import BatchTensorDataset, TrainingBatchSampler
from datamodules.word_vectors.running_text import RunningText
from engine.errors import UserError

CHUNK_PAIRS = 2**24  # 0.4 GB of memory, independent of the length of the text
HELD_OUT = 100  # one pair in this many is for validation
Batch = tuple[dict[str, Tensor], Tensor]


class Cooccurrences(RunningText):
    """Serve pairs of words and their co-occurrence counts.

    Inputs are `input_ids` and `candidates`, both (2B,), targets the counts, (2B, 1): B pairs and,
    since the counts are symmetric, the same pairs swapped. One hundredth of the distinct pairs are
    held out for validation.

    Args:
        window: Maximum distance of two words.
        min_pair_count: Drop pairs with a smaller count, which are numerous and mostly chance.
        **text: Arguments of RunningText; `batch_size` counts pairs.
    """

    def __init__(self, window: int = 10, min_pair_count: float = 0.0, **text: Any) -> None:
        super().__init__(**text)
        if window < 1:
            raise UserError(f"data.window must be at least 1, got {window}.")
        if not min_pair_count >= 0:
            raise UserError(f"data.min_pair_count must be at least 0, got {min_pair_count}.")
        self.window = window
        self.min_pair_count = min_pair_count

    @cached_property
    def splits(self) -> dict[str, "Pairs"]:
        """The pairs for training and validation."""
        counted = count_pairs(self.words["train"], self.vocab_size, self.window)
        frequent = counted[2] >= self.min_pair_count
        tensors = [tensor[frequent] for tensor in counted]
        if len(tensors[0]) < HELD_OUT:
            raise UserError(
                f"The text is too short: it has {len(tensors[0])} distinct pairs of words and "
                f"needs {HELD_OUT}. Use more text in --data.text, or a smaller "
                "--data.min_count or --data.min_pair_count."
            )
        generator = torch.Generator().manual_seed(0)  # the same split in every run
        held_out = (
            torch.randint(HELD_OUT, tensors[0].shape, generator=generator, dtype=torch.uint8) == 0
        )
        held_out[0] = True  # at least one
        return {
            "train": Pairs(*(tensor[~held_out] for tensor in tensors)),
            "val": Pairs(*(tensor[held_out] for tensor in tensors)),
        }

    @property
    def summary(self) -> str:
        """That of RunningText, with the number of pairs."""
        return f"{len(self.splits['train']):,} distinct pairs of {super().summary}"

    def train_dataloader(self) -> DataLoader:
        pairs = self.splits["train"]
        rank, world_size = self._world
        batches = TrainingBatchSampler(len(pairs), self.batch_size, self.seed, rank, world_size)
        return BatchLoader(pairs, batches=batches, seed=self.seed, rank=rank)

    def held_out(self) -> Dataset:
        """Return the batches of the validation pairs."""
        return HeldOutPairs(self.splits["val"], self.batch_size, *self._world)


class Pairs(BatchTensorDataset):
    """Pairs of words and their counts; an item is a batch of them, in both orders."""

    def __getitem__(self, rows: Tensor) -> Batch:  # type: ignore[override]
        first, second, counts = super().__getitem__(rows)
        inputs = {
            "input_ids": torch.cat([first, second]).long(),
            "candidates": torch.cat([second, first]).long(),
        }
        return inputs, counts.repeat(2)[:, None]


class HeldOutPairs(Dataset[Batch]):
    """Batches of all pairs, distributed over the processes."""

    def __init__(self, pairs: Pairs, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.pairs = pairs
        number = -(-len(pairs) // batch_size)  # batches, the same for each process
        self.rows = torch.arange(len(pairs)).tensor_split(number * world_size)[rank::world_size]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.pairs[self.rows[index]]


def count_pairs(
    texts: RaggedTokens, vocab_size: int, window: int, chunk_pairs: int = CHUNK_PAIRS
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum 1 / distance over all pairs of words within a window.

    The text is processed in chunks, so that only the sums grow with it. A pair and its distance are
    encoded as one integer, and sorting brings equal pairs together.

    Args:
        texts: Word indices.
        vocab_size: V, exclusive upper bound of the indices.
        window: Maximum distance.
        chunk_pairs: Maximum pairs per chunk (at least those of one position).

    Returns:
        The smaller and the larger index of each pair, int32, and its sum, float32, all (P,). A pair
        of equal words counts twice, once from either side.
    """
    words = texts.tokens.numpy().astype(np.int64)
    text = np.repeat(np.arange(len(texts)), texts.lengths.numpy())
    keys, sums = np.empty(0, np.int64), np.empty(0, np.float64)
    step = max(1, chunk_pairs // window)
    for start in range(0, len(words), step):
        found = []
        for distance in range(1, window + 1):
            stop = min(start + step, len(words) - distance)
            if stop <= start:
                break
            here, there = slice(start, stop), slice(start + distance, stop + distance)
            a, b = (words[part][text[here] == text[there]] for part in (here, there))
            pair = np.minimum(a, b) * vocab_size + np.maximum(a, b)
            found.append(pair * (window + 1) + distance)
        if not found:
            continue
        encoded = np.sort(np.concatenate(found))
        new, distances = encoded // (window + 1), encoded % (window + 1)
        keys, sums = _merge(keys, sums, *_sum_by_key(new, 1 / distances))
    first, second = keys // vocab_size, keys % vocab_size
    sums[first == second] *= 2
    return (
        torch.from_numpy(first.astype(np.int32)),
        torch.from_numpy(second.astype(np.int32)),
        torch.from_numpy(sums.astype(np.float32)),
    )


def _sum_by_key(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each of the sorted keys once, with the sum of its values."""
    if not len(keys):
        return keys, values
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(values, starts)


def _merge(
    keys: np.ndarray, sums: np.ndarray, more: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Merge two sorted lists of unique keys and add the sums of equal ones."""
    both = np.concatenate([keys, more])
    order = np.argsort(both, kind="stable")  # merges two sorted runs in linear time
    return _sum_by_key(both[order], np.concatenate([sums, values])[order])
