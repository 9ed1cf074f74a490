"""Words and their neighbours, as skip-gram and CBOW learn from them.

Mikolov et al. 2013, "Efficient estimation of word representations in vector space", and
"Distributed representations of words and phrases and their compositionality" (subsampling,
negative sampling, section 2). With f the share of a word among all words of the text:

    kept with probability   min(1, (√(f / t) + 1) · t / f)          as word2vec's code has it
    window of a word        drawn evenly from 1 … window, so that near neighbours count more
    negatives               drawn by count^0.75

No pair is ever made by itself. The words of a step stand in rows of 16; a row meets the 16 words
and their `window` neighbours on either side, and a matrix says which of these 16 × (16 + 2 ·
window) places are pairs. The words of a row share their negatives (Ji et al. 2016, "Parallelizing
word2vec in shared and distributed memory"): each counts for as much as all that it stands for.
So the scores of a row are one matrix product, and its gradients two.

word2vec moves a vector at every pair; here all pairs of a step move it at once, from where it stood
before. A word that is in many of them would be thrown far beyond its goal. So no word counts for
more than `most` pairs and negatives of a step: beyond that, all of them weigh less. The true pairs
and the negatives of a word lose the same share, so what is learned of it stays the same.
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

ROW = 16  # words that share their negatives, and one matrix product
Batch = tuple[dict[str, Tensor], Tensor]


class ContextWindows(RunningText):
    """Serve rows of words with their neighbours and negatives, and what is a pair among them.

    Targets are weights: 1 for a word and its neighbour, 0 where nothing is told, and below 0 for a
    word and a negative, whose logit counts that often as one of a pair that does not belong
    together. With R rows of L = 16 words, S = L + 2 · window and N `drawn` negatives a row:

    | model | inputs | targets |
    | --- | --- | --- |
    | skip_gram | `input_ids` (R, L), `candidates` (R, S + N) | (R, L, S + N) |
    | cbow | `input_ids` (R, S), `windows` (R, L, S), `candidates` (R, L + N) | (R, L, L + N) |

    `windows` are the weights of the mean over a word's neighbours.

    Args:
        model: `skip_gram` tells a word's neighbours by the word, `cbow` a word by the mean of its
            neighbours.
        window: The most words to either side that count as neighbours.
        negatives: Negatives that stand against each pair.
        drawn: Negatives that a row draws; each stands for `negatives / drawn` of every pair.
        subsample: t, the share of the text above which a word is thinned out; 0 keeps all.
        most: Pairs and negatives of a word that count in a step of training; None: all. The
            product with the learning rate is what has to be small enough, about 12.
        **text: Arguments of RunningText; `batch_size` counts words of the text, before they are
            thinned out.
    """

    def __init__(
        self,
        model: Literal["skip_gram", "cbow"] = "skip_gram",
        window: int = 5,
        negatives: int = 5,
        drawn: int = 16,
        subsample: float = 1e-4,
        most: float | None = 500.0,
        **text: Any,
    ) -> None:
        super().__init__(**text)
        if model not in ("skip_gram", "cbow"):
            raise UserError(f"data.model must be skip_gram or cbow, got {model!r}.")
        for name, value in (("window", window), ("negatives", negatives), ("drawn", drawn)):
            if value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}.")
        if not 0 <= subsample < float("inf"):
            raise UserError(
                f"data.subsample must be 0 (keep all words) or positive, such as 0.0001, got "
                f"{subsample}."
            )
        if most is not None and not most > 0:
            raise UserError(f"data.most must be positive, or null for no limit, got {most}.")
        self.model = model
        self.window = window
        self.negatives = negatives
        self.drawn = drawn
        self.subsample = subsample
        self.most = most

    def _windows(
        self, split: str, batch_size: int, most: float | None, whole: bool = False
    ) -> "Windows":
        rank, world_size = self._world
        return Windows(
            self.words[split],
            self.counts,
            self.model,
            window=self.window,
            negatives=self.negatives,
            drawn=self.drawn,
            subsample=self.subsample,
            most=most,
            batch_size=batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            whole=whole,
        )

    def train_dataloader(self) -> DataLoader:
        windows = self._windows("train", self.batch_size, self.most)
        return train_loader(windows, self.seed, windows.rank)

    def held_out(self) -> Dataset:
        """The same for texts that were held out; every validation draws the same."""
        size = min(self.batch_size, len(self.words["val"].tokens))
        return self._windows("val", size, None, whole=True)


class Windows(Dataset[Batch]):
    """The batch of step s, a function of (seed, s) alone.

    In every epoch all texts follow one another in a new order. Every process makes the rows of the
    whole batch and takes every `world_size`-th of them.

    Args:
        texts: Numbers of words.
        counts: How often each word occurs, (V,): for thinning out and for negatives.
        model: `skip_gram` or `cbow`.
        window: See ContextWindows, as for the following ones.
        negatives: Against each pair.
        drawn: Negatives of a row.
        subsample: Share above which a word is thinned out.
        most: Pairs and negatives of a word that count in a step.
        batch_size: Words of a step over all processes.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        whole: Have a smaller batch at the end, so that every word is seen.
    """

    def __init__(
        self,
        texts: RaggedTokens,
        counts: Tensor,
        model: Literal["skip_gram", "cbow"] = "skip_gram",
        *,
        window: int = 5,
        negatives: int = 5,
        drawn: int = 16,
        subsample: float = 1e-4,
        most: float | None = None,
        batch_size: int = 2048,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        whole: bool = False,
    ) -> None:
        self.texts = texts
        self.model = model
        self.window = window
        self.drawn = drawn
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        if len(texts.tokens) < batch_size:
            raise UserError(
                f"batch_size {batch_size} is larger than the training text of {len(texts.tokens)} "
                "words: choose a smaller --data.batch_size."
            )
        self.steps = len(texts.tokens) // batch_size
        if whole:
            self.steps = -(-len(texts.tokens) // batch_size)  # rounded up
        self.seed = seed
        self.keep = keeping(counts, subsample).float()  # (V,)
        self.drawing = drawing(counts).cumsum(0)  # (V,), float64, up to 1
        self.pairs = places(window)  # (L, W + 1, W + 1, S)
        # What stands against a word with n pairs: n · negatives, spread over those drawn.
        sides = torch.arange(window + 1)
        found = (sides[:, None] + sides).float() if model == "skip_gram" else None
        self.against = negatives / drawn
        self.most = most
        self._table = self._targets(found)  # (L · (W + 1)², C)
        self._windows = self.pairs / self.pairs.sum(-1, keepdim=True).clamp(min=1)
        self._row: tuple[int, Tensor, Tensor] | None = None  # epoch, words, number of their text

    def _targets(self, found: Tensor | None) -> Tensor:
        """The targets of a word by its place in the row and its neighbours to either side."""
        pairs = self.pairs
        if found is None:  # CBOW: one pair, the word itself and its neighbours, if it has any
            found = (pairs.sum(-1)[0] > 0).float()
            pairs = torch.eye(ROW)[:, None, None] * found[:, :, None]  # (L, W + 1, W + 1, L)
        against = -self.against * found[None, :, :, None].expand(ROW, -1, -1, self.drawn)
        return torch.cat([pairs, against], dim=-1).flatten(0, 2)

    def __len__(self) -> int:
        """The steps of an epoch; those that train leave out the words that fill no last batch."""
        return self.steps

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """All words in the order of an epoch, and the number of the text of each, (total,)."""
        if self._row is None or self._row[0] != epoch:
            draw = _generator(self.seed, epoch, 0)
            order = torch.randperm(len(self.texts), generator=draw)
            lengths = self.texts.lengths[order]
            before = lengths.cumsum(0) - lengths
            place = torch.arange(len(self.texts.tokens))
            place += (self.texts.offsets[order] - before).repeat_interleave(lengths)
            self._row = (epoch, self.texts.tokens[place], order.int().repeat_interleave(lengths))
        return self._row[1], self._row[2]

    def __getitem__(self, step: int) -> Batch:
        epoch, position = divmod(step, self.steps)
        words, texts = self._epoch(epoch)
        part = slice(position * self.batch_size, (position + 1) * self.batch_size)
        draw = _generator(self.seed, epoch, 1 + position)
        words, texts = words[part].long(), texts[part]
        kept = torch.rand(len(words), generator=draw) < self.keep[words]
        return self.rows(words[kept], texts[kept], draw)

    def rows(self, words: Tensor, texts: Tensor, draw: torch.Generator) -> Batch:
        """This process's rows of words that follow one another.

        Args:
            words: Numbers of words, (T,), int64.
            texts: The text of each: neighbours are of one text.
            draw: Draws windows and negatives.
        """
        left, right = self._neighbours(texts, draw)  # (T,), (T,)
        count = max(1, -(-len(words) // (ROW * self.world_size))) * self.world_size  # R
        negatives = self._negatives(count, draw)  # (R, N)
        padded = words.new_zeros(count * ROW + 2 * self.window)
        padded[self.window : self.window + len(words)] = words
        spans = padded.unfold(0, ROW + 2 * self.window, ROW)  # (R, S)
        centers = padded[self.window : len(padded) - self.window].view(count, ROW)  # (R, L)
        own = spans if self.model == "skip_gram" else centers
        candidates = torch.cat([own, negatives], dim=1)[self._mine]  # (R, C)
        # Which row of the tables a word has: its place in the row and its neighbours' numbers.
        code = torch.arange(ROW).repeat(count) * (self.window + 1) ** 2
        code[: len(words)] += left * (self.window + 1) + right
        code = code.view(count, ROW)[self._mine]  # (R, L)
        targets = self._table.index_select(0, code.flatten()).unflatten(0, code.shape)
        if self.most is not None:
            as_word, as_candidate = self._weights(words, left + right, negatives)  # (V,), (V,)
            targets *= as_candidate[candidates][:, None, :]
            if self.model == "skip_gram":  # CBOW's mean is of many words, each moved but little
                targets *= as_word[centers[self._mine]][:, :, None]
        if self.model == "skip_gram":
            inputs = {"input_ids": centers[self._mine], "candidates": candidates}
            return inputs, targets  # (R, L, S + N)
        table = self._windows.flatten(0, 2)
        inputs = {
            "input_ids": spans[self._mine],
            "windows": table.index_select(0, code.flatten()).unflatten(0, code.shape),
            "candidates": candidates,
        }
        return inputs, targets  # (R, L, L + N)

    def _weights(self, words: Tensor, pairs: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """What a pair weighs by its word and by its candidate, so that none counts too much.

        Pairs are as many the other way round, so a word's own tell how often it is a candidate.

        Args:
            words: (T,).
            pairs: How many pairs each is the word of, (T,).
            negatives: (R, N).
        """
        assert self.most is not None
        pairs = (pairs if self.model == "skip_gram" else pairs.clamp(max=1)).double()
        a_row = pairs.new_zeros(len(negatives) * ROW)
        a_row[: len(words)] = pairs
        drawn = (self.against * a_row.view(-1, ROW).sum(1, keepdim=True)).expand_as(negatives)
        size = len(self.keep)
        found = torch.bincount(words, pairs, size)  # (V,)
        against = torch.bincount(negatives.flatten(), drawn.flatten(), size)  # (V,)
        as_word = self.most / (found * (1 + self.against * self.drawn))
        as_candidate = self.most / (found + against)
        return as_word.clamp(max=1).float(), as_candidate.clamp(max=1).float()

    @property
    def _mine(self) -> slice:
        return slice(self.rank, None, self.world_size)

    def _neighbours(self, texts: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """How many words to the left and to the right of each are its neighbours, (T,), (T,)."""
        _, lengths = texts.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0)
        place = torch.arange(len(texts))
        window = torch.randint(1, self.window + 1, texts.shape, generator=draw)
        before = place - (ends - lengths).repeat_interleave(lengths)
        after = ends.repeat_interleave(lengths) - 1 - place
        return torch.minimum(window, before), torch.minimum(window, after)

    def _negatives(self, rows: int, draw: torch.Generator) -> Tensor:
        """Words drawn by count^0.75, (R, N)."""
        drawn = torch.rand(rows, self.drawn, dtype=torch.float64, generator=draw)
        # `right`: a word that never occurs has no place of its own. The last sum may be below 1.
        found = torch.searchsorted(self.drawing, drawn * self.drawing[-1], right=True)
        return found.clamp_(max=len(self.drawing) - 1)


def keeping(counts: Tensor, subsample: float) -> Tensor:
    """The probability with which an occurrence of each word is kept, (V,), float64."""
    share = counts.double() / counts.sum()
    kept = ((share / subsample).sqrt() + 1) * (subsample / share) if subsample else share + 1
    return kept.nan_to_num(1.0).clamp(max=1.0)


def drawing(counts: Tensor) -> Tensor:
    """The probability with which each word is drawn as a negative, (V,), float64."""
    powers = counts.double() ** 0.75
    return powers / powers.sum()


def places(window: int) -> Tensor:
    """Where a word's neighbours stand, for each place in a row and number to either side.

    Returns:
        1 for a neighbour, else 0: (L, window + 1, window + 1, L + 2 · window).
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
