"""How often two words stand near each other, counted once, as GloVe learns from it.

Pennington et al. 2014, section 4.2: two words at a distance of d ≤ window in the same text count
1 / d, whichever comes first.
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

PAIRS_AT_ONCE = 2**24  # of a chunk: 0.4 GB, whatever the length of the text
HELD_OUT = 100  # every so many-th count validates
Batch = tuple[dict[str, Tensor], Tensor]


class Cooccurrences(RunningText):
    """Serve pairs of words with how often they stand together, in a new order each epoch.

    Inputs are `input_ids` and `candidates`, both (2B,), targets the counts, (2B, 1): B pairs and,
    since the counts are symmetric, the same pairs the other way round. One hundredth of all
    different pairs never trains, and validates.

    Args:
        window: The largest distance that counts.
        min_pair_count: Pairs that count less are left out: most are chance, and they are many.
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
        """The pairs that train and those that validate."""
        counted = count(self.words["train"], self.vocab_size, self.window)
        frequent = counted[2] >= self.min_pair_count
        tensors = [tensor[frequent] for tensor in counted]
        if len(tensors[0]) < HELD_OUT:
            raise UserError(
                f"The text is too short: {len(tensors[0])} different pairs of words stand "
                f"together, and {HELD_OUT} are needed. Give more text by --data.text, or a smaller "
                "--data.min_count or --data.min_pair_count."
            )
        draw = torch.Generator().manual_seed(0)  # a split that no run changes
        held_out = torch.randint(HELD_OUT, tensors[0].shape, generator=draw, dtype=torch.uint8) == 0
        held_out[0] = True  # however few there are
        return {
            "train": Pairs(*(tensor[~held_out] for tensor in tensors)),
            "val": Pairs(*(tensor[held_out] for tensor in tensors)),
        }

    @property
    def summary(self) -> str:
        """As that of RunningText, and how many pairs there are."""
        return f"{len(self.splits['train']):,} different pairs of {super().summary}"

    def train_dataloader(self) -> DataLoader:
        pairs = self.splits["train"]
        rank, world_size = self._world
        batches = TrainingBatchSampler(len(pairs), self.batch_size, self.seed, rank, world_size)
        return BatchLoader(pairs, batches=batches, seed=self.seed, rank=rank)

    def held_out(self) -> Dataset:
        """Pairs that were never learned from."""
        return HeldOut(self.splits["val"], self.batch_size, *self._world)


class Pairs(BatchTensorDataset):
    """Pairs of words and their counts; an item is the batch of the rows asked for, both ways."""

    def __getitem__(self, rows: Tensor) -> Batch:  # type: ignore[override]
        first, second, counts = super().__getitem__(rows)
        inputs = {
            "input_ids": torch.cat([first, second]).long(),
            "candidates": torch.cat([second, first]).long(),
        }
        return inputs, counts.repeat(2)[:, None]


class HeldOut(Dataset[Batch]):
    """All pairs in batches, of which each process has its part."""

    def __init__(self, pairs: Pairs, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.pairs = pairs
        number = -(-len(pairs) // batch_size)  # of batches, the same for each process
        self.rows = torch.arange(len(pairs)).tensor_split(number * world_size)[rank::world_size]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return self.pairs[self.rows[index]]


def count(
    texts: RaggedTokens, vocab_size: int, window: int, at_once: int = PAIRS_AT_ONCE
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of 1 / distance over all pairs of words within a window.

    The text is read in chunks, so that only the sums grow with it. A pair and its distance are one
    number: sorting those brings equal pairs together.

    Args:
        texts: Numbers of words.
        vocab_size: V, above all numbers.
        window: The largest distance.
        at_once: The most pairs of a chunk (one text position's at least).

    Returns:
        The smaller and the larger number of each pair, int32, and X of it, float32, all (P,).
        X(i, i) counts a pair of equal words twice, once from either side.
    """
    words = texts.tokens.numpy().astype(np.int64)
    text = np.repeat(np.arange(len(texts)), texts.lengths.numpy())
    keys, sums = np.empty(0, np.int64), np.empty(0, np.float64)
    step = max(1, at_once // window)
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
        marked = np.sort(np.concatenate(found))
        new, distances = marked // (window + 1), marked % (window + 1)
        keys, sums = _merged(keys, sums, *_summed(new, 1 / distances))
    first, second = keys // vocab_size, keys % vocab_size
    sums[first == second] *= 2
    return (
        torch.from_numpy(first.astype(np.int32)),
        torch.from_numpy(second.astype(np.int32)),
        torch.from_numpy(sums.astype(np.float32)),
    )


def _summed(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each of the sorted keys once, with the sum of its values."""
    if not len(keys):
        return keys, values
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(values, starts)


def _merged(
    keys: np.ndarray, sums: np.ndarray, more: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted lists of different keys as one, with their sums."""
    both = np.concatenate([keys, more])
    order = np.argsort(both, kind="stable")  # which merges two sorted runs, in linear time
    return _summed(both[order], np.concatenate([sums, values])[order])
