"""Sentences in two languages, held in memory as tokens: what all data for translation share."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer, processors
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.language_modeling.base import refuse
from datamodules.loading.files import default_data_dir
from datamodules.loading.length_batches import BucketedDataModule, padding_fraction
from datamodules.loading.ragged import Inputs, RaggedTokens
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.reading import read_utf8
from datamodules.text.tokenization import NUM_BYTES, encode_each
from datamodules.text.tokenizers import Kind, learn, with_cutting_and_padding
from preprocessing.special_tokens import BOS, EOS, IGNORE_INDEX, PAD, UNK

SPECIALS = (PAD, UNK, BOS, EOS)


class ParallelTexts(NamedTuple):
    """Sentences, and the translation of each."""

    sources: list[str]
    targets: list[str]

    def select(self, rows: list[int]) -> "ParallelTexts":
        return ParallelTexts([self.sources[r] for r in rows], [self.targets[r] for r in rows])


class TranslationPairs(Dataset[tuple[Inputs, Tensor]]):
    """N pairs; an item is the padded batch of the rows asked for.

    Args:
        sources: N sentences, each of which ends with [EOS].
        targets: Their translations, each from [BOS] to [EOS].
        pads: The tokens that fill the shorter ones up, of both languages.
        references: The translations as they were written, in bytes of UTF-8; for evaluation.
    """

    def __init__(
        self,
        sources: RaggedTokens,
        targets: RaggedTokens,
        pads: tuple[int, int],
        references: RaggedTokens | None = None,
    ) -> None:
        self.sources = sources
        self.targets = targets
        self.pads = pads
        self.references = references

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        inputs = self.sources.pad_batch(rows, self.pads[0])  # (B, S)
        written = self.targets.pad_batch(rows, self.pads[1])  # (B, T + 1), from [BOS] to [EOS]
        inside = written["attention_mask"][:, 1:]  # (B, T)
        # Who reads [EOS] has nothing more to say: there, too, stands padding.
        inputs["decoder_input_ids"] = written["input_ids"][:, :-1].masked_fill(
            ~inside, self.pads[1]
        )
        if self.references is not None:
            inputs["references"] = self.references.pad_batch(rows, 0)["input_ids"]  # (B, bytes)
        return inputs, written["input_ids"][:, 1:].masked_fill(~inside, IGNORE_INDEX)  # (B, T)

    @property
    def lengths(self) -> Tensor:
        """What sorts pairs so that those of like length stand together, (N,).

        First the longer side of each, then the source: 8 % of a batch are padding then, against 24
        and 3 % of the two sides by the target's length first (Multi30k).
        """
        sources, targets = self.sources.lengths, self.targets.lengths
        return torch.maximum(sources, targets) * (sources.max() + 1) + sources

    @property
    def source_lengths(self) -> Tensor:
        return self.sources.lengths


class TranslationDataModule(BucketedDataModule):
    """Serve `({"input_ids", "attention_mask", "decoder_input_ids"}, targets)`.

    Shapes are (B, S), (B, S), (B, T) and (B, T). A batch holds sentences of like length and is as
    wide as its longest ones; the mask is True where the source has words. The decoder reads [BOS]
    and the translation, and its targets are the translation and [EOS]; where a shorter one has
    ended, the target is -100, which counts for nothing. To validate and test there are also
    `references`, the translations as they were written: bytes of UTF-8, filled up with 0.

    The tokenizers are learnt from the training pairs alone.

    Args:
        tokenizer: `bpe` (byte pairs, which spell any text and give it back as it was), or `words`.
        max_vocab_size: The most tokens that are learnt, of each vocabulary.
        min_count: How often a token must occur in the training texts.
        lowercase: Read capital letters as small ones. Translations then have none.
        shared: One vocabulary for both languages, learnt from both; else one for each.
        context: The most tokens, [BOS] and [EOS] among them, that the net sees of a sentence; what
            is longer is cut, and counted.
        batch_size: Pairs of an optimizer step over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        predict: A file in the source language, a sentence a line, that `predict` translates; the
            test sentences by default.
        seed: Seed of the order of training pairs; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        tokenizer: str = "bpe",
        max_vocab_size: int = 8_000,
        min_count: int = 2,
        lowercase: bool = False,
        shared: bool = True,
        context: int = 64,
        batch_size: int = 128,
        data_dir: str | None = None,
        predict: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        smallest = NUM_BYTES + len(SPECIALS) if tokenizer == "bpe" else len(SPECIALS) + 1
        refuse(
            {
                f"tokenizer is {tokenizer!r}: choose bpe or words.": (
                    tokenizer not in ("bpe", "words")
                ),
                f"max_vocab_size is {max_vocab_size}: {tokenizer} needs {smallest} or more.": (
                    max_vocab_size < smallest
                ),
                f"min_count is {min_count}: it must be 1 or more.": min_count < 1,
                f"context is {context}: a net must see 3 tokens or more.": context < 3,
                f"seed is {seed}: it must be 0 or more.": seed < 0,
            }
        )
        self.kind: Kind = tokenizer  # type: ignore[assignment]
        self.max_vocab_size = max_vocab_size
        self.min_count = min_count
        self.lowercase = lowercase
        self.shared_vocabulary = shared
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir())
        self.predict = predict
        self.seed = seed
        self.splits: dict[str, TranslationPairs] = {}

    @abstractmethod
    def load(self) -> dict[str, ParallelTexts]:
        """Obtain and read the splits `train`, `val` and `test`."""

    @cached_property
    def texts(self) -> dict[str, ParallelTexts]:
        """The raw sentences of all splits. They may be wanted before `setup`, for the vocabulary.

        Training pairs with nothing on one side would teach to invent, or to keep silent: they are
        left out, and counted.
        """
        texts = dict(self.load())
        train, size = texts["train"], len(texts["train"].sources)
        whole = [row for row, pair in enumerate(zip(*train, strict=True)) if all(pair)]
        if not whole:
            raise MisconfigurationException("The training split holds no pair of sentences.")
        if len(whole) < size:
            first = next(n for n, row in enumerate([*whole, -1]) if n != row)
            rank_zero_warn(
                f"Left out of training: {size - len(whole):,} of {size:,} pairs, one side of which "
                f"is empty; the first is line {first + 1}."
            )
            texts["train"] = train.select(whole)
        if self.predict is not None:
            lines = read_lines(Path(self.predict))
            texts["predict"] = ParallelTexts(lines, [""] * len(lines))
        return texts

    # What the net and the task want to know before training.

    @cached_property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """What turns a sentence of either language into tokens, from [BOS] to [EOS] for targets."""
        train = self.texts["train"]
        parts = [[*train.sources, *train.targets]] if self.shared_vocabulary else [*train]
        made = [
            learn(
                self.kind,
                texts,
                self.max_vocab_size,
                self.min_count,
                self.lowercase,
                specials=SPECIALS[2:],
            )
            for texts in parts
        ]
        source, target = (Tokenizer.from_str(made[place].to_str()) for place in (0, -1))
        for tokenizer, frame in ((source, f"$A {EOS}"), (target, f"{BOS} $A {EOS}")):
            tokenizer.post_processor = processors.TemplateProcessing(
                single=frame,
                special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)],
            )
        return source, target

    @property
    def source_vocab_size(self) -> int:
        """Number of tokens of the source language."""
        return self.tokenizers[0].get_vocab_size()

    @property
    def target_vocab_size(self) -> int:
        """Number of tokens of the target language."""
        return self.tokenizers[1].get_vocab_size()

    @property
    def source_tokenizer_json(self) -> str:
        """The source's tokenizer, with cutting and padding, as `Tokenizer.from_str` reads it."""
        return with_cutting_and_padding(self.tokenizers[0], self.context)

    @property
    def target_tokenizer_json(self) -> str:
        """The target's tokenizer, likewise."""
        return with_cutting_and_padding(self.tokenizers[1], self.context)

    # From sentences to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if self.splits:
            return
        pads = (self._special(0, PAD), self._special(1, PAD))
        cut = {}
        for split, texts in self.texts.items():
            whole = [
                RaggedTokens.from_sequences(encode_each(tokenizer, sentences))
                for tokenizer, sentences in zip(self.tokenizers, texts, strict=True)
            ]
            too_long = (whole[0].lengths > self.context) | (whole[1].lengths > self.context)
            cut[split] = int(too_long.sum())
            sources, targets = (tokens.truncate(self.context, keep_last=True) for tokens in whole)
            written = None if split == "train" else as_bytes(texts.targets)
            self.splits[split] = TranslationPairs(sources, targets, pads, written)
        if any(cut.values()):
            counted = ", ".join(
                f"{n:,} of {len(self.splits[split]):,} {split}" for split, n in cut.items() if n
            )
            rank_zero_warn(
                f"Pairs longer than the context of {self.context} tokens: {counted}. What is "
                "beyond is not read; a larger --data.context reads more."
            )

    def _special(self, language: int, name: str) -> int:
        number: int = self.tokenizers[language].token_to_id(name)  # type: ignore[assignment]
        return number

    @property
    def summary(self) -> str:
        """What was loaded, in a sentence: sizes, unknown tokens, padding of the first epoch."""
        train, val = self.splits["train"], self.splits["val"]
        unknown = torch.eq(val.sources.tokens, self._special(0, UNK)).float().mean()
        kinds = f"{self.source_vocab_size:,} kinds of tokens"
        if not self.shared_vocabulary:
            kinds = f"{self.source_vocab_size:,} and {self.target_vocab_size:,} kinds of tokens"
        bucketed, plain = (
            [
                padding_fraction(side.lengths[self._batches(**pool).batches()])
                for side in (train.sources, train.targets)
            ]
            for pool in ({}, {"pool": 1})
        )
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in self.splits.items())
        lengths = [side.lengths.float().mean() for side in (train.sources, train.targets)]
        return (
            f"{sizes} pairs, {lengths[0]:.1f} and {lengths[1]:.1f} tokens each; {kinds}"
            f"{' for both languages' if self.shared_vocabulary else ''}, unknown are {unknown:.1%} "
            f"of val; padding is {bucketed[0]:.1%} and {bucketed[1]:.1%} of a batch, {plain[0]:.1%}"
            f" and {plain[1]:.1%} without sorting by length"
        )


def as_bytes(texts: list[str]) -> RaggedTokens:
    """The bytes of each text."""
    return RaggedTokens.from_sequences(np.frombuffer(text.encode(), np.uint8) for text in texts)


def read_lines(path: Path) -> list[str]:
    """The sentences of a file in UTF-8, one a line, without blanks around them.

    Raises:
        MisconfigurationException: If it is not there, holds nothing, or is no such text.
    """
    if not path.is_file():
        raise MisconfigurationException(
            f"There is no file {path} (looked for from {Path.cwd()}): correct its name."
        )
    text = read_utf8(path)
    if not text.strip():
        raise MisconfigurationException(f"{path} holds no sentence: write one a line.")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def read_pairs(source: Path, target: Path) -> ParallelTexts:
    """The sentences of two files that are each other's translation line by line.

    Raises:
        MisconfigurationException: If one can't be read, or they have not as many lines.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise MisconfigurationException(
            f"{source} has {len(sources):,} lines and {target} has {len(targets):,}: a sentence "
            "and its translation must stand in lines of the same number. Find where one is "
            "missing, and leave the line empty there."
        )
    return ParallelTexts(sources, targets)
