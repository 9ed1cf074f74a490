"""Words and their neighbors for skip-gram and CBOW (word2vec).

Mikolov et al. 2013, "Efficient estimation of word representations in vector space", and
"Distributed representations of words and phrases and their compositionality" (subsampling,
negative sampling, section 2). With f the frequency of a word divided by the length of the text:

    probability of keeping a word   min(1, (√(f / t) + 1) · t / f)   as in word2vec's code
    window of a word                uniform from 1 … window, so that near neighbors count more
    negatives                       sampled by count^0.75

Pairs are not enumerated. The words of a step form rows of 16; a row is compared with its 16 words
and their `window` neighbors on either side, and a matrix marks which of these 16 × (16 + 2 ·
window) positions are pairs. The words of a row share their negatives (Ji et al. 2016,
"Parallelizing word2vec in shared and distributed memory"), each weighted by the number it replaces.
The scores of a row are therefore one matrix product, and its gradients two.

word2vec updates a vector after every pair; here all pairs of a step update it at once, from the
same value, which overshoots for a word with many pairs. The pairs and negatives of a word are
therefore scaled so that their weights in a step add up to at most `max_weight`. True pairs and
negatives of a word are scaled equally, so the optimum stays the same.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.language_modeling.token_batches import train_loader
from datamodules.loading.ragged import RaggedTokens
from datamodules.word_vectors.running_text import RunningText
from engine.errors import UserError

ROW = 16  # words that share their negatives and one matrix product
Batch = tuple[dict[str, Tensor], Tensor]


class ContextWindows(RunningText):
    """Serve rows of words with their candidates: neighbors and negatives.

    Targets are weights: 1 for a word and its neighbor, 0 for no pair, and negative for a word and a
    negative sample, by how many samples it stands for. With R rows of L = 16 words, S = L + 2 ·
    window and N = negatives_per_row:

    | model | inputs | targets |
    | --- | --- | --- |
    | skip_gram | `input_ids` (R, L), `candidates` (R, S + N) | (R, L, S + N) |
    | cbow | `input_ids` (R, S), `windows` (R, L, S), `candidates` (R, L + N) | (R, L, L + N) |

    `windows` are the weights of the mean over the neighbors of a word.

    Args:
        model: `skip_gram` predicts the neighbors of a word, `cbow` a word from the mean of its
            neighbors.
        window: Maximum distance of a neighbor, in words.
        negatives: Negative samples per pair.
        negatives_per_row: Distinct negatives sampled per row; each stands for
            `negatives / negatives_per_row` of every pair.
        subsample: t, the relative frequency above which words are randomly dropped; 0 keeps all.
        max_weight: Maximum total weight of the pairs and negatives of a word in a training step,
            null for no limit. Its product with the learning rate should be about 12.
        **text: Arguments of RunningText; `batch_size` counts words before subsampling.
    """

    def __init__(
        self,
        model: Literal["skip_gram", "cbow"] = "skip_gram",
        window: int = 5,
        negatives: int = 5,
        negatives_per_row: int = 16,
        subsample: float = 1e-4,
        max_weight: float | None = 500.0,
        **text: Any,
    ) -> None:
        super().__init__(**text)
        if model not in ("skip_gram", "cbow"):
            raise UserError(f"data.model must be skip_gram or cbow, got {model!r}.")
        for name, value in (
            ("window", window),
            ("negatives", negatives),
            ("negatives_per_row", negatives_per_row),
        ):
            if value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}.")
        if not 0 <= subsample < float("inf"):
            raise UserError(
                f"data.subsample must be 0 (keep all words) or positive, such as 0.0001, got "
                f"{subsample}."
            )
        if max_weight is not None and not max_weight > 0:
            raise UserError(
                f"data.max_weight must be positive, or null for no limit, got {max_weight}."
            )
        self.model = model
        self.window = window
        self.negatives = negatives
        self.negatives_per_row = negatives_per_row
        self.subsample = subsample
        self.max_weight = max_weight

    def _windows(
        self, split: str, batch_size: int, max_weight: float | None, keep_last: bool = False
    ) -> "Windows":
        rank, world_size = self._world
        return Windows(
            self.words[split],
            self.counts,
            self.model,
            window=self.window,
            negatives=self.negatives,
            negatives_per_row=self.negatives_per_row,
            subsample=self.subsample,
            max_weight=max_weight,
            batch_size=batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            keep_last=keep_last,
        )

    def train_dataloader(self) -> DataLoader:
        windows = self._windows("train", self.batch_size, self.max_weight)
        return train_loader(windows, self.seed, windows.rank)

    def held_out(self) -> Dataset:
        """Return the batches of the validation texts, the same in every validation."""
        size = min(self.batch_size, len(self.words["val"].tokens))
        return self._windows("val", size, None, keep_last=True)


class Windows(Dataset[Batch]):
    """The batch of a step, a pure function of (seed, step).

    Every epoch shuffles the texts. Every process computes the rows of the global batch and takes
    every `world_size`-th of them.

    Args:
        texts: Word indices.
        counts: Occurrences of each word, (V,), for subsampling and negatives.
        model: `skip_gram` or `cbow`.
        window: See ContextWindows, as for the next four.
        negatives: Negative samples per pair.
        negatives_per_row: Distinct negatives per row.
        subsample: Relative frequency above which words are dropped.
        max_weight: Maximum total weight of a word in a step.
        batch_size: Words of a step over all processes.
        seed: Seed of the run.
        rank: Rank of this process.
        world_size: Number of processes.
        keep_last: Keep the incomplete last batch, so that every word is used.
    """

    def __init__(
        self,
        texts: RaggedTokens,
        counts: Tensor,
        model: Literal["skip_gram", "cbow"] = "skip_gram",
        *,
        window: int = 5,
        negatives: int = 5,
        negatives_per_row: int = 16,
        subsample: float = 1e-4,
        max_weight: float | None = None,
        batch_size: int = 2048,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        keep_last: bool = False,
    ) -> None:
        self.texts = texts
        self.model = model
        self.window = window
        self.negatives_per_row = negatives_per_row
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        if len(texts.tokens) < batch_size:
            raise UserError(
                f"batch_size {batch_size} is larger than the training text of {len(texts.tokens)} "
                "words: choose a smaller --data.batch_size."
            )
        self.steps = len(texts.tokens) // batch_size
        if keep_last:
            self.steps = -(-len(texts.tokens) // batch_size)  # rounded up
        self.seed = seed
        self.keep = keep_probability(counts, subsample).float()  # (V,)
        self.cumulative = negative_probability(counts).cumsum(0)  # (V,), float64, up to 1
        self.pairs = neighbor_positions(window)  # (L, W + 1, W + 1, S)
        # A word with n pairs has n · negatives samples, distributed over those of its row.
        sides = torch.arange(window + 1)
        num_pairs = (sides[:, None] + sides).float() if model == "skip_gram" else None
        self.negative_weight = negatives / negatives_per_row
        self.max_weight = max_weight
        self._target_table = self._targets(num_pairs)  # (L · (W + 1)², C)
        self._window_table = self.pairs / self.pairs.sum(-1, keepdim=True).clamp(min=1)
        self._epoch_words: tuple[int, Tensor, Tensor] | None = None  # epoch, words, their texts

    def _targets(self, num_pairs: Tensor | None) -> Tensor:
        """Return the targets of a word by its position in the row and its neighbors per side."""
        pairs = self.pairs
        if num_pairs is None:  # CBOW: one pair, the word and its neighbors, if there are any
            num_pairs = (pairs.sum(-1)[0] > 0).float()
            pairs = torch.eye(ROW)[:, None, None] * num_pairs[:, :, None]  # (L, W + 1, W + 1, L)
        negative = -self.negative_weight * num_pairs[None, :, :, None].expand(
            ROW, -1, -1, self.negatives_per_row
        )
        return torch.cat([pairs, negative], dim=-1).flatten(0, 2)

    def __len__(self) -> int:
        """Steps per epoch; without keep_last, the words of an incomplete last batch are dropped."""
        return self.steps

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return all words in the order of an epoch and the text of each, both (total,)."""
        if self._epoch_words is None or self._epoch_words[0] != epoch:
            generator = _generator(self.seed, epoch, 0)
            order = torch.randperm(len(self.texts), generator=generator)
            lengths = self.texts.lengths[order]
            before = lengths.cumsum(0) - lengths
            positions = torch.arange(len(self.texts.tokens))
            positions += (self.texts.offsets[order] - before).repeat_interleave(lengths)
            self._epoch_words = (
                epoch,
                self.texts.tokens[positions],
                order.int().repeat_interleave(lengths),
            )
        return self._epoch_words[1], self._epoch_words[2]

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps)
        words, texts = self._epoch(epoch)
        part = slice(position * self.batch_size, (position + 1) * self.batch_size)
        generator = _generator(self.seed, epoch, 1 + position)
        words, texts = words[part].long(), texts[part]
        kept = torch.rand(len(words), generator=generator) < self.keep[words]
        return self.rows(words[kept], texts[kept], generator)

    def rows(self, words: Tensor, texts: Tensor, generator: torch.Generator) -> Batch:
        """Return this process's rows of consecutive words.

        Args:
            words: Word indices, (T,), int64.
            texts: The text of each; neighbors are of the same text.
            generator: Samples windows and negatives.
        """
        left, right = self._neighbors(texts, generator)  # (T,), (T,)
        count = max(1, -(-len(words) // (ROW * self.world_size))) * self.world_size  # R
        negatives = self._negatives(count, generator)  # (R, N)
        padded = words.new_zeros(count * ROW + 2 * self.window)
        padded[self.window : self.window + len(words)] = words
        spans = padded.unfold(0, ROW + 2 * self.window, ROW)  # (R, S)
        centers = padded[self.window : len(padded) - self.window].view(count, ROW)  # (R, L)
        positives = spans if self.model == "skip_gram" else centers
        candidates = torch.cat([positives, negatives], dim=1)[self._local_rows]  # (R, C)
        # Row of the tables for a word, by its position in the row and its neighbors per side.
        index = torch.arange(ROW).repeat(count) * (self.window + 1) ** 2
        index[: len(words)] += left * (self.window + 1) + right
        index = index.view(count, ROW)[self._local_rows]  # (R, L)
        targets = self._target_table.index_select(0, index.flatten()).unflatten(0, index.shape)
        if self.max_weight is not None:
            as_word, as_candidate = self._weights(words, left + right, negatives)  # (V,), (V,)
            targets *= as_candidate[candidates][:, None, :]
            if self.model == "skip_gram":  # in CBOW each word is a small part of the mean
                targets *= as_word[centers[self._local_rows]][:, :, None]
        if self.model == "skip_gram":
            inputs = {"input_ids": centers[self._local_rows], "candidates": candidates}
            return inputs, targets  # (R, L, S + N)
        table = self._window_table.flatten(0, 2)
        inputs = {
            "input_ids": spans[self._local_rows],
            "windows": table.index_select(0, index.flatten()).unflatten(0, index.shape),
            "candidates": candidates,
        }
        return inputs, targets  # (R, L, L + N)

    def _weights(self, words: Tensor, pairs: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight of a pair by its word and by its candidate, both (V,).

        The number of pairs is symmetric, so the pairs of a word also count it as a candidate.

        Args:
            words: (T,).
            pairs: Number of pairs of each, (T,).
            negatives: (R, N).
        """
        assert self.max_weight is not None
        pairs = (pairs if self.model == "skip_gram" else pairs.clamp(max=1)).double()
        by_row = pairs.new_zeros(len(negatives) * ROW)
        by_row[: len(words)] = pairs
        samples = (self.negative_weight * by_row.view(-1, ROW).sum(1, keepdim=True)).expand_as(
            negatives
        )
        size = len(self.keep)
        pair_counts = torch.bincount(words, pairs, size)  # (V,)
        negative_counts = torch.bincount(negatives.flatten(), samples.flatten(), size)  # (V,)
        as_word = self.max_weight / (
            pair_counts * (1 + self.negative_weight * self.negatives_per_row)
        )
        as_candidate = self.max_weight / (pair_counts + negative_counts)
        return as_word.clamp(max=1).float(), as_candidate.clamp(max=1).float()

    @property
    def _local_rows(self) -> slice:
        return slice(self.rank, None, self.world_size)

    def _neighbors(self, texts: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the number of neighbors of each word to the left and to the right, both (T,)."""
        _, lengths = texts.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0)
        positions = torch.arange(len(texts))
        window = torch.randint(1, self.window + 1, texts.shape, generator=generator)
        before = positions - (ends - lengths).repeat_interleave(lengths)
        after = ends.repeat_interleave(lengths) - 1 - positions
        return torch.minimum(window, before), torch.minimum(window, after)

    def _negatives(self, rows: int, generator: torch.Generator) -> Tensor:
        """Sample words by count^0.75, (R, N)."""
        samples = torch.rand(rows, self.negatives_per_row, dtype=torch.float64, generator=generator)
        # right=True skips words that never occur. The last sum may be below 1 by rounding.
        found = torch.searchsorted(self.cumulative, samples * self.cumulative[-1], right=True)
        return found.clamp_(max=len(self.cumulative) - 1)


def keep_probability(counts: Tensor, subsample: float) -> Tensor:
    """Return the probability of keeping an occurrence of each word, (V,), float64."""
    frequency = counts.double() / counts.sum()
    if not subsample:
        return torch.ones_like(frequency)
    keep = ((frequency / subsample).sqrt() + 1) * (subsample / frequency)
    return keep.nan_to_num(1.0).clamp(max=1.0)


def negative_probability(counts: Tensor) -> Tensor:
    """Return the probability of sampling each word as a negative, (V,), float64."""
    powers = counts.double() ** 0.75
    return powers / powers.sum()


def neighbor_positions(window: int) -> Tensor:
    """Return the neighbors of a word by its position in the row and its neighbors per side.

    Returns:
        1 for a neighbor, else 0: (L, window + 1, window + 1, L + 2 · window).
    """
    span = torch.arange(-window, ROW + window)
    distance = span - torch.arange(ROW)[:, None]  # (L, S)
    sides = torch.arange(window + 1)
    left = (distance < 0) & (distance >= -sides[:, None, None])  # (W + 1, L, S)
    right = (distance > 0) & (distance <= sides[:, None, None])  # (W + 1, L, S)
    return (left[:, None] | right[None]).permute(2, 0, 1, 3).float()


def _generator(*numbers: int) -> torch.Generator:
    mixed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    return torch.Generator().manual_seed(mixed)
