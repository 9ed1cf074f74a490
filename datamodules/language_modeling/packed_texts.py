"""Plain texts cut into rows of equal length, for a net that guesses their hidden words."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.language_modeling.base import refuse
from datamodules.loading.files import default_data_dir
from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.ragged import Inputs
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from datamodules.text.reading import matching_files, read_text, survey
from datamodules.text.tokenization import encode_each
from datamodules.text.tokenizers import choose, file_of
from datamodules.text.tokenizers import with_cutting_and_padding as complete
from preprocessing.special_tokens import CLS, MASK, PAD, SEP, UNK

BLANK_LINE = re.compile(r"\r?\n\r?\n")
Visits = tuple[Tensor, Tensor]  # which rows, and a number for each that its masks hang on; (B,)


class PackedTexts(L.LightningDataModule):
    """Serve `({"input_ids", "attention_mask", "draw"}, tokens)`: (B, T), (B, T), (B,) and (B, T).

    The texts stand one after the other, each followed by [SEP], and are cut into rows of
    [CLS] … [SEP]; only the last row of a split has padding. `draw` decides which words of a row the
    task hides: it is another one in every epoch, and always the same in validation.

    Args:
        tokenizer: `wordpiece`, learnt from the training texts alone; `bert`, BERT's own uncased
            word pieces; or a file or folder that has one: see TextClassificationDataModule.
        max_vocab_size: The most tokens that `wordpiece` learns.
        min_count: How often a piece must occur in the training texts to be learnt.
        lowercase: Read capital letters as small ones.
        context: T, the tokens of a row, [CLS] and [SEP] among them.
        batch_size: Rows of an optimizer step over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of rows and of `draw`; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        tokenizer: str = "wordpiece",
        max_vocab_size: int = 8_000,
        min_count: int = 2,
        lowercase: bool = True,
        context: int = 128,
        batch_size: int = 32,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        refuse(
            {
                f"max_vocab_size is {max_vocab_size}: it must be 6 or more.": max_vocab_size < 6,
                f"min_count is {min_count}: it must be 1 or more.": min_count < 1,
                f"context is {context}: a row needs 4 tokens or more.": context < 4,
                f"seed is {seed}: it must be 0 or more.": seed < 0,
            }
        )
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.min_count = min_count
        self.lowercase = lowercase
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir())
        file_of(tokenizer, self.data_dir)  # an error now, and not after all texts were read
        self.seed = seed
        self.splits: dict[str, PackedRows] = {}

    @abstractmethod
    def documents(self, split: str) -> Iterable[str]:
        """The texts of `train` or `val`."""

    # What the net and the task want to know before training.

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns one text into tokens, without cutting and padding."""
        made = choose(
            self.kind,
            lambda: self.documents("train"),
            self.max_vocab_size,
            self.min_count,
            self.lowercase,
            data_dir=self.data_dir,
        )
        lacking = [name for name in (PAD, CLS, SEP, MASK) if made.token_to_id(name) is None]
        if lacking or made.num_special_tokens_to_add(False) != 2:
            raise MisconfigurationException(
                f"The tokenizer {self.kind!r} does not read a text as {CLS} … {SEP} with a {MASK} "
                f"to hide words behind{f' (it lacks {lacking[0]})' if lacking else ''}: choose "
                "--data.tokenizer wordpiece or bert."
            )
        return made

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the special ones among them."""
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, with cutting and padding, as `Tokenizer.from_str` reads it."""
        return complete(self.tokenizer, self.context)

    # From texts to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, rank_and_world_size(self.trainer)[1])
        if self.splits:
            return
        vocab = self.tokenizer.get_vocab()
        cls, sep, pad = (vocab[name] for name in (CLS, SEP, PAD))
        for split in ("train", "val"):
            # Each text comes as [CLS] … [SEP]: one [CLS] a row is enough.
            texts = [row[1:] for row in encode_each(self.tokenizer, self.documents(split))]
            tokens = np.concatenate([np.empty(0, np.int32), *texts]).astype(np.int32)
            if len(tokens) <= len(texts):
                raise MisconfigurationException(f"The split {split!r} of the data holds no text.")
            rows = packed(torch.from_numpy(tokens), self.context, cls, sep, pad)
            self.splits[split] = PackedRows(rows, pad)

    @property
    def summary(self) -> str:
        """What was loaded, in a sentence: sizes, and unknown tokens."""
        parts = []
        unknown = self.tokenizer.get_vocab()[UNK]
        for split, data in self.splits.items():
            share = torch.eq(data.rows, unknown).sum() / torch.ne(data.rows, data.pad).sum()
            parts.append(f"{len(data):,} {split} rows ({share:.2%} unknown)")
        return (
            f"{', '.join(parts)} of {self.context} tokens each; {self.vocab_size:,} kinds of tokens"
        )

    def train_dataloader(self) -> DataLoader:
        rank, world_size = rank_and_world_size(self.trainer)
        rows = self.splits["train"]
        batches = TrainingVisits(len(rows), self.batch_size, self.seed, rank, world_size)
        return BatchLoader(rows, batches=batches, seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        rows = self.splits["val"]
        batches = EvaluationBatchSampler(
            len(rows), self.batch_size, *rank_and_world_size(self.trainer)
        )
        return BatchLoader(rows, batches=EvaluationVisits(batches))


def packed(tokens: Tensor, context: int, cls: int, sep: int, pad: int) -> Tensor:
    """Cuts a long row of tokens into rows [CLS] … [SEP], (N, context); the last one is padded.

    Args:
        tokens: (total,), int32, 1 or more.
        context: Tokens of a row.
        cls: Begins every row.
        sep: Ends it.
        pad: Follows in the last row.
    """
    inside = context - 2
    number = -(-len(tokens) // inside)  # rounded up
    rows = torch.full((number, context), pad, dtype=tokens.dtype)
    rows[:, 0] = cls
    rows[:-1, -1] = sep
    whole = (number - 1) * inside
    rows[:-1, 1:-1] = tokens[:whole].view(number - 1, inside)
    rest = tokens[whole:]
    rows[-1, 1 : len(rest) + 1] = rest
    rows[-1, len(rest) + 1] = sep
    return rows


class PackedRows(Dataset[tuple[Inputs, Tensor]]):
    """Rows of tokens; an item is the batch of the rows asked for.

    Args:
        rows: (N, T), int32.
        pad: The token that is none.
    """

    def __init__(self, rows: Tensor, pad: int) -> None:
        self.rows = rows
        self.pad = pad

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, visits: Visits) -> tuple[Inputs, Tensor]:
        rows, draw = visits
        tokens = self.rows.index_select(0, rows).long()  # (B, T)
        inputs = {"input_ids": tokens, "attention_mask": tokens != self.pad, "draw": draw}
        return inputs, tokens


class TrainingVisits(TrainingBatchSampler):
    """The rows of each batch, with a number for each row that no other row or epoch shares.

    The numbers of an epoch count from one that seed and epoch decide, row by row: which process
    takes a row, and in which batch, does not matter.
    """

    def __iter__(self) -> Iterator[Visits]:  # type: ignore[override]
        first = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0]
        base = int(first >> np.uint64(2))  # far from the end of int64
        for rows in super().__iter__():
            yield rows, rows + base


class EvaluationVisits(Sampler[Visits]):
    """The rows of each batch, with their own numbers: every evaluation is the same.

    Args:
        batches: Which rows.
    """

    def __init__(self, batches: EvaluationBatchSampler) -> None:
        self.start = 0
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Visits]:
        return ((rows, rows) for rows in self.batches)


class PackedFiles(PackedTexts):
    """Text files of one's own, whose last part validates; a blank line ends a text.

    Takes the arguments of PackedTexts, and these.

    Args:
        files: Text files in UTF-8; `*`, `?` and `**` stand for many, which are then sorted.
        val_fraction: The share of the characters, taken from the end, that validates.
    """

    def __init__(
        self,
        files: list[str],
        val_fraction: float = 0.1,
        tokenizer: str = "wordpiece",
        max_vocab_size: int = 8_000,
        min_count: int = 2,
        lowercase: bool = True,
        context: int = 128,
        batch_size: int = 32,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            tokenizer, max_vocab_size, min_count, lowercase, context, batch_size, data_dir, seed
        )
        refuse(
            {
                f"val_fraction is {val_fraction}: it must lie between 0 and 1, for example 0.1.": (
                    not 0 < val_fraction < 1
                )
            }
        )
        self.files = files
        self.val_fraction = val_fraction

    def find(self) -> list[Path]:
        """The files in the order of their text. A data set of its own obtains them here."""
        found = (path for pattern in self.files for path in matching_files(pattern))
        return list(dict.fromkeys(found))  # two patterns may name the same

    @cached_property
    def _paths(self) -> list[Path]:
        return self.find()

    @cached_property
    def _split(self) -> int:
        """The number of characters that train."""
        return int(survey(self._paths)[0] * (1 - self.val_fraction))

    def documents(self, split: str) -> Iterator[str]:
        part = (0, self._split) if split == "train" else (self._split, None)
        for text in BLANK_LINE.split("".join(read_text(self._paths, *part))):
            if text.strip():
                yield text
