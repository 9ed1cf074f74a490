"""Texts in rows of equal length for masked language models."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import hash_arrays
from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.ragged import Inputs
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from datamodules.text.encoding import encode_texts
from datamodules.text.reading import SplitText, find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build
from datamodules.text.tokenizers import Kind, train_tokenizer
from datamodules.text.unchanged import UnchangedText
from engine.errors import UserError
from preprocessing.special_tokens import CLS, MASK, PAD, SEP, UNK
from preprocessing.texts import with_truncation_and_padding

KINDS = ("wordpiece", "bert")
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)
BLANK_LINE = re.compile(r"\r?\n\r?\n")
SeededRows = tuple[Tensor, Tensor]  # row numbers and a seed of the mask for each, both (B,)


class PackedTexts(UnchangedText):
    """Serve `({"input_ids", "attention_mask", "draw"}, tokens)`: (B, T), (B, T), (B,) and (B, T).

    The texts are concatenated, each followed by [SEP], and split into rows [CLS] … [SEP]; only the
    last row of a split has padding. `draw` seeds the choice of the tokens that the task masks:
    different in every epoch of training, always the same in validation.

    Args:
        tokenizer: `wordpiece`, trained on the training texts; `bert`, the uncased vocabulary of
            BERT; or that of another BERT model: its checkpoint, a tokenizer.json or a Hugging Face
            folder. For the last two `max_vocab_size`, `min_count` and `lowercase` have no effect.
        max_vocab_size: Maximum vocabulary of `wordpiece`.
        min_count: Occurrences in the training texts that a piece needs.
        lowercase: Convert texts to lower case.
        context: T, tokens per row, including [CLS] and [SEP].
        batch_size: Rows per batch over all processes.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
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
        if max_vocab_size < 6:
            raise UserError(f"data.max_vocab_size must be at least 6, got {max_vocab_size}.")
        if min_count < 1:
            raise UserError(f"data.min_count must be at least 1, got {min_count}.")
        if context < 4:
            raise UserError(f"data.context must be at least 4, got {context}.")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}.")
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.min_count = min_count
        self.lowercase = lowercase
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail before the texts are read
        self.seed = seed
        self.splits: dict[str, PackedRows] = {}

    @abstractmethod
    def documents(self, split: str) -> Iterable[str]:
        """Return the texts of `train` or `val`."""

    # Linked to the model before training.

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without truncation and padding."""
        tokenizer = load_or_build(
            self.kind, KINDS, self._train_tokenizer, self.data_dir, SPECIAL_TOKENS
        )
        if tokenizer.num_special_tokens_to_add(False) != 2:
            raise UserError(
                f"the tokenizer {self.kind} does not encode a text as {CLS} … {SEP}: choose "
                "--data.tokenizer wordpiece, bert or that of a BERT model."
            )
        return tokenizer

    def _train_tokenizer(self, kind: Kind) -> Tokenizer:
        return train_tokenizer(
            kind,
            self.documents("train"),
            self.max_vocab_size,
            self.min_count,
            self.lowercase,
            data_dir=self.data_dir,
        )

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer with truncation and padding as JSON, for `Tokenizer.from_str`."""
        return with_truncation_and_padding(self.tokenizer, self.context)

    # From texts to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, rank_and_world_size(self.trainer)[1])
        if self.splits:
            return
        vocab = self.tokenizer.get_vocab()
        cls, sep, pad = (vocab[name] for name in (CLS, SEP, PAD))
        for split in ("train", "val"):
            # Each text is encoded as [CLS] … [SEP]; a row has only one [CLS].
            texts = [row[1:] for row in encode_texts(self.tokenizer, self.documents(split))]
            tokens = np.concatenate([np.empty(0, np.int32), *texts]).astype(np.int32)
            if len(tokens) <= len(texts):
                raise UserError(f"The {split} split contains no text.")
            rows = pack(torch.from_numpy(tokens), self.context, cls, sep, pad)
            self.splits[split] = PackedRows(rows, pad)

    @cached_property
    def fingerprint(self) -> str:
        return hash_arrays(data.rows.numpy() for data in self.splits.values())

    @property
    def summary(self) -> str:
        """Sizes and the fraction of unknown tokens, in one line."""
        parts = []
        unknown = self.tokenizer.get_vocab()[UNK]
        for split, data in self.splits.items():
            fraction = torch.eq(data.rows, unknown).sum() / torch.ne(data.rows, data.pad).sum()
            parts.append(f"{len(data):,} {split} rows ({fraction:.2%} unknown)")
        return (
            f"{', '.join(parts)} of {self.context} tokens each; vocabulary of {self.vocab_size:,}"
        )

    def train_dataloader(self) -> DataLoader:
        rank, world_size = rank_and_world_size(self.trainer)
        rows = self.splits["train"]
        batches = SeededTrainingSampler(len(rows), self.batch_size, self.seed, rank, world_size)
        return BatchLoader(rows, batches=batches, seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        rows = self.splits["val"]
        batches = EvaluationBatchSampler(
            len(rows), self.batch_size, *rank_and_world_size(self.trainer)
        )
        return BatchLoader(rows, batches=SeededEvaluationSampler(batches))


def pack(tokens: Tensor, context: int, cls: int, sep: int, pad: int) -> Tensor:
    """Split a token sequence into rows [CLS] … [SEP], (N, context), and pad the last one.

    Args:
        tokens: (total,), int32, not empty.
        context: Tokens per row.
        cls: First token of every row.
        sep: Last token of every row.
        pad: Token that fills the last row.
    """
    inner = context - 2
    number = -(-len(tokens) // inner)  # rounded up
    rows = torch.full((number, context), pad, dtype=tokens.dtype)
    rows[:, 0] = cls
    rows[:-1, -1] = sep
    full = (number - 1) * inner
    rows[:-1, 1:-1] = tokens[:full].view(number - 1, inner)
    rest = tokens[full:]
    rows[-1, 1 : len(rest) + 1] = rest
    rows[-1, len(rest) + 1] = sep
    return rows


class PackedRows(Dataset[tuple[Inputs, Tensor]]):
    """Token rows; an item is a batch of them.

    Args:
        rows: (N, T), int32.
        pad: Padding token.
    """

    def __init__(self, rows: Tensor, pad: int) -> None:
        self.rows = rows
        self.pad = pad

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: SeededRows) -> tuple[Inputs, Tensor]:
        rows, draw = batch
        tokens = self.rows.index_select(0, rows).long()  # (B, T)
        inputs = {"input_ids": tokens, "attention_mask": tokens != self.pad, "draw": draw}
        return inputs, tokens


class SeededTrainingSampler(TrainingBatchSampler):
    """Sample training batches with a mask seed per row that no other row or epoch shares.

    The seeds of an epoch are consecutive from a number that depends on (seed, epoch), so they do
    not depend on the batch or the process of a row.
    """

    def __iter__(self) -> Iterator[SeededRows]:  # type: ignore[override]
        first = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0]
        base = int(first >> np.uint64(2))  # adding the row number cannot overflow int64
        for rows in super().__iter__():
            yield rows, rows + base


class SeededEvaluationSampler(Sampler[SeededRows]):
    """Sample evaluation batches, always with the row numbers as mask seeds."""

    def __init__(self, batches: EvaluationBatchSampler) -> None:
        self.start = 0
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededRows]:
        return ((rows, rows) for rows in self.batches)


class PackedFiles(PackedTexts):
    """Your own text files, split into texts at blank lines; the last part is for validation.

    Takes the arguments of PackedTexts, and these.

    Args:
        files: UTF-8 text files or patterns with `*`, `?` and `**`, sorted within each pattern.
        val_fraction: Fraction of the characters, at the end, for validation.
    """

    def __init__(
        self,
        files: list[str] | str,
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
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, got {val_fraction}.")
        self.files = files
        self.val_fraction = val_fraction

    def find(self) -> list[Path]:
        """Return the files in the order of their text; subclasses may download them here."""
        return find_files(self.files)

    @cached_property
    def text(self) -> SplitText:
        return SplitText(self.find(), self.val_fraction)

    def documents(self, split: str) -> Iterator[str]:
        for text in BLANK_LINE.split("".join(self.text.read(split))):
            if text.strip():
                yield text
