"""Texts of a Hugging Face data set, read and tokenized during training without being stored.

For texts that are used once, or change more often than shards are worth writing. The documents, in
the order of the data set and each followed by an end-of-text token, form an endless token sequence:
after the last document follows the first. Step s takes the tokens from s · B · T on,

    step 0   [row 0  row 1  …  row B-1]
    step 1                              [row 0  row 1  …  row B-1]

so batches depend on the step alone, not on the number of processes. Checkpoints hold the position
of the stream before each of the last steps: a run resumes bit for bit and reads nothing twice. The
stream is not shuffled: choose a data set that is, as those for pretraining are.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset

from datamodules.language_modeling.base import TokenDataModule
from datamodules.language_modeling.token_batches import Batch, TokenSequence, train_loader
from datamodules.loading.files import default_data_dir
from datamodules.text.encoding import encode_long_text, split_into_chunks
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build
from datamodules.text.tokenizers import (
    NUM_BYTES,
    add_end_of_text,
    find_end_of_text,
    gpt2_tokenizer,
    take_characters,
    train_bpe,
)
from engine.errors import UserError

KINDS = ("gpt2", "bpe")
KEPT_STEPS = 4  # the loader is asked for a batch before the previous one is trained on
BPE_CHARACTERS = 10**7  # training text of `bpe`

State = dict[str, Any]


def open_dataset(
    dataset: str, split: str, field: str, files: list[str] | None = None, flag: str = "--data."
) -> Any:
    """Open a data set for streaming, as a `datasets.IterableDataset`.

    Args:
        dataset: Name on the hub, a folder, or a reader of `files`: text, json, parquet, csv.
        split: Name of the split.
        field: Column of the text.
        files: Paths or URLs for a reader.
        flag: Prefix of these arguments on the command line, for messages.

    Raises:
        UserError: If the package, the data set or the column is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{flag}dataset needs the package `datasets`: pip install 'datasets>=3.0' (the extra "
            "`datasets` of pyproject.toml)."
        ) from error
    more = {} if files is None else {"data_files": files}
    try:
        load = partial(datasets.load_dataset, dataset, split=split, streaming=True, **more)
        columns = next(iter(load()))
    except Exception as error:  # many types: unknown names, network errors, empty data sets
        raise UserError(
            f"cannot open {flag}dataset {dataset}, split {split}: "
            f"{' '.join(str(error).split())[:300] or 'it is empty'}"
        ) from error
    if not isinstance(columns.get(field), str):
        raise UserError(
            f"{flag}dataset {dataset} has no text in {field!r}; its columns are "
            f"{', '.join(map(repr, columns))}. Set {flag}field to the right one."
        )
    return load()  # a new object: iterators of the same one share their position


class DocumentStream:
    """Endless stream of the tokens of documents.

    Args:
        open_rows: Returns a new `datasets.IterableDataset`.
        field: Column of the text.
        tokenizer: Tokenizer of the text.
        end_of_text: Token that follows each document.
    """

    def __init__(
        self, open_rows: Callable[[], Any], field: str, tokenizer: Tokenizer, end_of_text: int
    ) -> None:
        self.open_rows = open_rows
        self.field = field
        self.tokenizer = tokenizer
        self.end_of_text = end_of_text
        self.restore(None)

    def restore(self, state: State | None) -> None:
        """Move to a saved position, or to the first document for None."""
        self._dataset = self.open_rows()
        if state is not None:
            self._dataset.load_state_dict(state)
        self.state = state  # plain values; the library has none before the first document
        self._rows: Iterator[dict[str, Any]] = iter(self._dataset)

    def next(self) -> np.ndarray:
        """Return the tokens of the next document, (N,)."""
        row = next(self._rows, None)
        if row is None:
            self.restore(None)
            row = next(self._rows)
        self.state = self._dataset.state_dict()
        return encode_document(row[self.field], self.tokenizer, self.end_of_text)


def encode_document(text: str, tokenizer: Tokenizer, end_of_text: int) -> np.ndarray:
    """Return the tokens of a document and the one that ends it, (N,), int64."""
    parts = encode_long_text(tokenizer, [text])
    return np.concatenate([*parts, np.array([end_of_text])]).astype(np.int64)


class StreamBatches(Dataset[Batch]):
    """The batch of each step of an endless token sequence.

    Args:
        documents: Source of the sequence.
        context: T, tokens per row.
        batch_size: B, rows of all processes.
        steps: Steps per epoch.
        saved: Positions of the stream before each of the last steps, updated here.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        documents: DocumentStream,
        context: int,
        batch_size: int,
        steps: int,
        saved: dict[int, State],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.documents = documents
        self.context = context
        self.batch_size = batch_size
        self.steps = steps
        self.saved = saved
        rows = batch_size // world_size
        self.rows = slice(rank * rows, (rank + 1) * rows)
        self._step = 0
        self._left = np.empty(0, np.int64)  # tokens that were read but not yet used

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if step != self._step:
            self._seek(step)
        tokens = self._take()  # (B T + 1,)
        inputs, targets = (
            torch.from_numpy(part.reshape(self.batch_size, self.context)[self.rows].copy())
            for part in (tokens[:-1], tokens[1:])
        )
        return inputs, targets  # (B, T), (B, T)

    def _take(self) -> np.ndarray:
        """Return the tokens of a step and the first of the next one; advance the stream."""
        self.saved[self._step] = {"documents": self.documents.state, "left": self._left.tolist()}
        for old in sorted(self.saved)[:-KEPT_STEPS]:
            del self.saved[old]
        length = self.batch_size * self.context
        parts, found = [self._left], len(self._left)
        while found <= length:
            parts.append(self.documents.next())
            found += len(parts[-1])
        tokens = np.concatenate(parts)
        self._left = tokens[length:]
        self._step += 1
        return tokens[: length + 1]

    def _seek(self, step: int) -> None:
        """Move to a step from the last saved position before it."""
        self._step = max((number for number in self.saved if number <= step), default=0)
        state = self.saved.get(self._step, {"documents": None, "left": []})
        self.documents.restore(state["documents"])
        self._left = np.array(state["left"], np.int64)
        while self._step < step:
            self._take()


class TextStream(TokenDataModule):
    """Serve a streamed Hugging Face data set: (inputs, targets), both int64 (B, T).

    Args:
        dataset: Name on the hub, a folder, or a reader of `files`: text, json, parquet, csv.
        files: Paths, patterns or URLs for a reader.
        dataset_split: Name of the split.
        field: Column of the text.
        tokenizer: `gpt2`, `bpe` (byte-level, trained on the first training documents), or that of
            another model: its checkpoint, a tokenizer.json or a Hugging Face folder. The last ones
            stay unchanged: if they have no end-of-text token, a newline follows each document.
        max_vocab_size: Maximum vocabulary of `bpe`, including `<|endoftext|>`.
        val_documents: Number of documents for validation, the first ones.
        epoch_steps: Steps per epoch.
        context: T, tokens per row.
        batch_size: B, rows per batch over all processes.
        seed: Seed of the run; the order of the texts is that of the data set.
        data_dir: Folder of GPT-2's files; by default DATA_DIR, else `data`.
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
        if max_vocab_size <= NUM_BYTES:
            raise UserError(
                "data.max_vocab_size must be at least 257, one token per byte and one for the end "
                f"of a text, got {max_vocab_size}."
            )
        if val_documents < 1:
            raise UserError(f"data.val_documents must be at least 1, got {val_documents}.")
        if epoch_steps < 1:
            raise UserError(f"data.epoch_steps must be at least 1, got {epoch_steps}.")
        self.dataset = dataset
        self.files = files
        self.dataset_split = dataset_split
        self.field = field
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.val_documents = val_documents
        self.epoch_steps = epoch_steps
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail before the text is read
        self.saved: dict[int, State] = {}

    def _rows(self, split: str) -> Any:
        rows = open_dataset(self.dataset, self.dataset_split, self.field, self.files)
        return rows.take(self.val_documents) if split == "val" else rows.skip(self.val_documents)

    @cached_property
    def _tokenizer_and_end(self) -> tuple[Tokenizer, int]:
        tokenizer = load_or_build(self.kind, KINDS, self._build_tokenizer, self.data_dir)
        if self.kind in KINDS:
            return add_end_of_text(tokenizer)
        return tokenizer, find_end_of_text(tokenizer)

    def _build_tokenizer(self, kind: str) -> Tokenizer:
        if kind == "gpt2":
            return gpt2_tokenizer(self.data_dir)
        texts = take_characters((row[self.field] for row in self._rows("train")), BPE_CHARACTERS)
        chunks = (chunk for text in texts for chunk in split_into_chunks([text]))
        return train_bpe(chunks, self.max_vocab_size - 1)

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer_and_end[0]

    @property
    def remedy(self) -> str:
        return "validate on more documents (--data.val_documents)"

    def load(self, split: str) -> TokenSequence:
        """Return all validation tokens; of the training tokens, enough to check their number."""
        found: list[np.ndarray] = [np.empty(0, np.int64)]
        for row in self._rows(split):
            found.append(encode_document(row[self.field], *self._tokenizer_and_end))
            if split == "train" and sum(map(len, found)) > self.context:
                break
        return np.concatenate(found)

    def train_dataloader(self) -> DataLoader:
        shard = self._rank_and_size
        documents = DocumentStream(
            partial(self._rows, "train"), self.field, *self._tokenizer_and_end
        )
        batches = StreamBatches(
            documents, self.context, self.batch_size, self.epoch_steps, self.saved, **shard
        )
        return train_loader(batches, self.seed, shard["rank"])

    def state_dict(self) -> dict[str, Any]:
        """Return the last positions of the stream and a hash of its beginning."""
        return super().state_dict() | {str(step): state for step, state in self.saved.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.saved.clear()
        self.saved.update({int(key): state for key, state in state_dict.items() if key.isdigit()})
