"""Texts of a Hugging Face data set, read and tokenised as training goes: nothing is stored.

For texts that are looked at once, or change faster than shards are made of them. The documents come
in the order of the data set, each followed by <|endoftext|>, as one row of tokens without an end:
after the last document the first comes again. Step s is what stands from s · B · T on,

    step 0   [row 0  row 1  …  row B-1]
    step 1                              [row 0  row 1  …  row B-1]

so batches depend on the step alone, however many processes share the rows. Where the stream stands
before each of the last steps is kept in checkpoints: a run goes on bit for bit, and reads nothing
twice. What it is not is shuffled: take a data set that is, as those for pretraining are.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from datamodules.language_modeling.base import TokenDataModule, refuse
from datamodules.language_modeling.token_batches import Batch, Tokens, train_loader
from datamodules.loading.files import default_data_dir
from datamodules.text import tokenization

KEPT_STEPS = 4  # a loader is asked for a batch before the one before is trained on
LEARNT_FROM = 10**7  # characters that byte pairs are learnt from

State = dict[str, Any]


def open_rows(
    dataset: str, split: str, field: str, files: list[str] | None = None, flag: str = "--data."
) -> Any:
    """The rows of a data set, read as they are wanted: a `datasets.IterableDataset`.

    Args:
        dataset: Its name on the hub, a folder, or what reads `files`: text, json, parquet, csv.
        split: Which part of it.
        field: The column that holds the text.
        files: Paths or URLs, for a data set that is no more than files.
        flag: What stands before the names of these arguments on the command line.

    Raises:
        MisconfigurationException: If the package is missing, or the data set, or the field.
    """
    try:
        import datasets
    except ImportError as error:
        raise MisconfigurationException(
            f"{flag}dataset needs the package `datasets`: pip install 'datasets>=3.0' (the extra "
            "`datasets` of pyproject.toml)."
        ) from error
    more = {} if files is None else {"data_files": files}
    try:
        open_them = partial(datasets.load_dataset, dataset, split=split, streaming=True, **more)
        fields = next(iter(open_them()))
    except Exception as error:  # the library raises many kinds, for a name as for the network
        raise MisconfigurationException(
            f"{flag}dataset {dataset}, split {split}, can't be opened: "
            f"{' '.join(str(error).split())[:300] or 'it is empty'}"
        ) from error
    if not isinstance(fields.get(field), str):
        raise MisconfigurationException(
            f"{flag}dataset {dataset} holds no text under {field!r}; it has "
            f"{', '.join(map(repr, fields))}. Name the right one by {flag}field."
        )
    return open_them()  # others: two readers of the same would stand at one place


class Documents:
    """The tokens of one document after the other, again and again.

    Args:
        open_rows: Gives a `datasets.IterableDataset` that nobody has read from.
        field: The column that holds the text.
        tokenizer: What makes tokens of it.
        end_of_text: The token that follows each document.
    """

    def __init__(
        self, open_rows: Callable[[], Any], field: str, tokenizer: Tokenizer, end_of_text: int
    ) -> None:
        self.open_rows = open_rows
        self.field = field
        self.tokenizer = tokenizer
        self.end = np.array([end_of_text])
        self.restore(None)

    def restore(self, state: State | None) -> None:
        """Stand where `state` was told; at the first document for None."""
        self._reading = self.open_rows()
        if state is not None:
            self._reading.load_state_dict(state)
        self.state = state  # where the stream stands, in plain values; the library knows it late
        self._documents: Iterator[dict[str, Any]] = iter(self._reading)

    def next(self) -> np.ndarray:
        """The tokens of the next document, (N,)."""
        document = next(self._documents, None)
        if document is None:
            self.restore(None)
            document = next(self._documents)
        self.state = self._reading.state_dict()
        return tokens_of(document[self.field], self.tokenizer, self.end)


def tokens_of(text: str, tokenizer: Tokenizer, end: np.ndarray) -> np.ndarray:
    """The tokens of one document, and the one that ends it, (N,)."""
    return np.concatenate([*tokenization.encode_corpus(tokenizer, [text]), end]).astype(np.int64)


class StreamedRows(Dataset[Batch]):
    """The batch of step s, from an endless row of tokens.

    Args:
        documents: What the row is made of.
        context: T, the tokens of a row of the batch.
        batch_size: B, the rows of all processes.
        steps: How many make an epoch.
        kept: Where the stream stood before each of the last steps, kept up to date.
        rank: Number of this process.
        world_size: How many there are.
    """

    def __init__(
        self,
        documents: Documents,
        context: int,
        batch_size: int,
        steps: int,
        kept: dict[int, State],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.documents = documents
        self.context = context
        self.batch_size = batch_size
        self.steps = steps
        self.kept = kept
        rows = batch_size // world_size
        self.rows = slice(rank * rows, (rank + 1) * rows)
        self._step = 0
        self._left = np.empty(0, np.int64)  # tokens of documents that are read, from the step on

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if step != self._step:
            self._go_to(step)
        row = self._take()  # (B T + 1,)
        inputs, targets = (
            torch.from_numpy(part.reshape(self.batch_size, self.context)[self.rows].copy())
            for part in (row[:-1], row[1:])
        )
        return inputs, targets  # (B, T), (B, T)

    def _take(self) -> np.ndarray:
        """The tokens of a step and the first of the next; the stream then stands there."""
        self.kept[self._step] = {"documents": self.documents.state, "left": self._left.tolist()}
        for old in sorted(self.kept)[:-KEPT_STEPS]:
            del self.kept[old]
        length = self.batch_size * self.context
        parts, found = [self._left], len(self._left)
        while found <= length:
            parts.append(self.documents.next())
            found += len(parts[-1])
        row = np.concatenate(parts)
        self._left = row[length:]
        self._step += 1
        return row[: length + 1]

    def _go_to(self, step: int) -> None:
        """To a step, from the nearest place before it that is known."""
        known = [number for number in self.kept if number <= step]
        self._step = max(known, default=0)
        state = self.kept.get(self._step, {"documents": None, "left": []})
        self.documents.restore(state["documents"])
        self._left = np.array(state["left"], np.int64)
        while self._step < step:
            self._take()


class TextStream(TokenDataModule):
    """Texts of a Hugging Face data set as they come, in batches of (inputs, targets) (B, T), int64.

    Args:
        dataset: Its name on the hub, a folder, or what reads `files`: text, json, parquet, csv.
        files: Paths, patterns or URLs of a data set that is no more than files.
        dataset_split: Which part of it.
        field: The column that holds the text.
        tokenizer: `gpt2`, or `bpe`: byte pairs learnt from the first documents that train.
        max_vocab_size: The most tokens that `bpe` may have, the one that ends a text among them.
        val_documents: So many documents, the first, validate; the others train.
        epoch_steps: Steps of an epoch: a stream has none of its own.
        context: T, the tokens that the net sees at once.
        batch_size: B, the rows of a step on all devices together.
        seed: Of dropout; the order of texts is that of the data set.
        data_dir: Where GPT-2's files are or go; DATA_DIR or `data` unless given.
    """

    def __init__(
        self,
        dataset: str,
        files: list[str] | None = None,
        dataset_split: str = "train",
        field: str = "text",
        tokenizer: str = "gpt2",
        max_vocab_size: int = 8192,
        val_documents: int = 100,
        epoch_steps: int = 1000,
        context: int = 1024,
        batch_size: int = 12,
        seed: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__(context, batch_size, seed)
        least = tokenization.NUM_BYTES + 1
        refuse(
            {
                f"tokenizer is {tokenizer!r}: it must be gpt2 or bpe.": (
                    tokenizer not in ("gpt2", "bpe")
                ),
                f"max_vocab_size is {max_vocab_size}: it must be {least} or more, one for each "
                "byte and one for the end of a text.": max_vocab_size < least,
                f"val_documents is {val_documents}: it must be 1 or more.": val_documents < 1,
                f"epoch_steps is {epoch_steps}: it must be 1 or more.": epoch_steps < 1,
            }
        )
        self.dataset = dataset
        self.files = files
        self.dataset_split = dataset_split
        self.field = field
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.val_documents = val_documents
        self.epoch_steps = epoch_steps
        self.data_dir = Path(data_dir or default_data_dir())
        self.kept: dict[int, State] = {}

    def _rows(self, split: str) -> Any:
        rows = open_rows(self.dataset, self.dataset_split, self.field, self.files)
        first = self.val_documents
        return rows.take(first) if split == "val" else rows.skip(first)

    @cached_property
    def _made(self) -> tuple[Tokenizer, int]:
        if self.kind == "gpt2":
            return tokenization.with_end_of_text(tokenization.gpt2(self.data_dir))
        texts = first_texts(self._rows("train"), self.field)
        pieces = (piece for text in texts for piece in tokenization.in_chunks([text]))
        made = tokenization.byte_pairs(pieces, self.max_vocab_size - 1)
        return tokenization.with_end_of_text(made)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._made[0]

    @property
    def remedy(self) -> str:
        return "validate with more documents (--data.val_documents)"

    def load(self, split: str) -> Tokens:
        """All tokens that validate; of those that train, as many as show that there are enough."""
        tokenizer, end = self._made
        found: list[np.ndarray] = [np.empty(0, np.int64)]
        for document in self._rows(split):
            found.append(tokens_of(document[self.field], tokenizer, np.array([end])))
            if split == "train" and sum(map(len, found)) > self.context:
                break
        return np.concatenate(found)

    def train_dataloader(self) -> DataLoader:
        share = self._share()
        documents = Documents(partial(self._rows, "train"), self.field, *self._made)
        rows = StreamedRows(
            documents, self.context, self.batch_size, self.epoch_steps, self.kept, **share
        )
        return train_loader(rows, self.seed, share["rank"])

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stood, for the checkpoint."""
        return {str(step): state for step, state in self.kept.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept.clear()
        self.kept.update({int(step): state for step, state in state_dict.items()})


def first_texts(rows: Any, field: str) -> Iterator[str]:
    """The documents that byte pairs are learnt from."""
    left = LEARNT_FROM
    for document in rows:
        yield document[field]
        left -= len(document[field])
        if left <= 0:
            return
