"""Instructions with answers, packed into rows; only the answers are targets."""

import json
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import hash_arrays
from datamodules.loading.loader import BatchLoader, rank_and_world_size
from datamodules.loading.splits import stratified_split
from datamodules.loading.tables import FORMATS, read_records
from datamodules.loading.whole_batches import (
    EvaluationBatchSampler,
    TrainingBatchSampler,
    local_batch_size,
)
from datamodules.text.reading import find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build, read_chat_template
from datamodules.text.tokenizers import NUM_BYTES, train_bpe
from datamodules.text.unchanged import UnchangedText
from engine.errors import UserError
from preprocessing.chat import CHATML, TURN_END, TURN_START, Message, answer_spans
from preprocessing.special_tokens import IGNORE_INDEX

KINDS = ("bpe",)


class Sample(NamedTuple):
    """A conversation as tokens, and for each token the target after it; both (T,)."""

    tokens: np.ndarray
    targets: np.ndarray


class Instructions(UnchangedText):
    """Serve `({"input_ids", "documents"}, targets)`, all int64 (B, T).

    Records have an instruction, an optional input and an output, or `messages`: a list of
    `{"role", "content"}`. The chat template writes them as text. Targets are the answers with their
    end-of-turn tokens; all other targets are -100. Several samples are packed into a row;
    `documents` numbers them, so that the network can separate them. Longer samples than the
    context are left out and counted.

    Args:
        train: JSON, JSON-lines, CSV or TSV file, or a pattern with `*`; also compressed (`*.gz`). A
            relative path is looked up in the working directory, then in `data_dir`.
        val: Validation file; by default `val_fraction` of the training samples.
        test: Test file; by default `test_fraction` of the training samples.
        val_fraction: Between 0 and 1.
        test_fraction: Between 0 and 1.
        instruction_column: Column, or JSON field, of the instruction.
        input_column: Column of the text that the instruction is about; it may be absent or empty.
        output_column: Column of the answer.
        tokenizer: `bpe` (byte-level, trained on the training samples), or that of a model: its
            checkpoint, a tokenizer.json or a Hugging Face folder; the chat template of the last two
            is used where there is one, else ChatML.
        bpe_vocab_size: Maximum vocabulary of `bpe`.
        context: T, tokens per row.
        batch_size: Rows per batch over all processes.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        seed: Seed of the order of rows; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        instruction_column: str = "instruction",
        input_column: str = "input",
        output_column: str = "output",
        tokenizer: str = "bpe",
        bpe_vocab_size: int = 2048,
        context: int = 512,
        batch_size: int = 8,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.fractions = {"val": val_fraction, "test": test_fraction}
        for name, fraction in self.fractions.items():
            if not 0 < fraction < 1:
                raise UserError(f"data.{name}_fraction must be between 0 and 1, got {fraction}.")
        if (0 if val else val_fraction) + (0 if test else test_fraction) >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on.")
        if bpe_vocab_size < NUM_BYTES + 2:
            raise UserError(
                f"data.bpe_vocab_size must be at least {NUM_BYTES + 2}, got {bpe_vocab_size}."
            )
        if context < 2:
            raise UserError(f"data.context must be at least 2, got {context}.")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}.")
        self.files = {"train": train, "val": val, "test": test}
        self.columns = (instruction_column, input_column, output_column)
        self.kind = tokenizer
        self.bpe_vocab_size = bpe_vocab_size
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail before the texts are read
        self.seed = seed
        self.splits: dict[str, Any] = {}

    # From files to conversations.

    @cached_property
    def conversations(self) -> dict[str, list[Any]]:
        """The conversations of train, val and test."""
        return self.split_samples()

    def split_samples(self) -> dict[str, list[Any]]:
        """Return the samples of the files of train, val and test.

        Raises:
            UserError: If a file cannot be read, or there are too few samples for all splits.
        """
        found = {split: self._read(file) for split, file in self.files.items() if file}
        missing = [split for split in ("val", "test") if split not in found]
        samples = found["train"]
        fractions = [self.fractions[split] for split in missing]
        parts = stratified_split([0] * len(samples), fractions)
        if not all(parts):
            raise UserError(
                f"{len(samples)} samples are too few to train, validate and test with: add some, "
                "or give --data.val and --data.test."
            )
        taken = {
            split: [samples[row] for row in sorted(rows)]
            for split, rows in zip(["train", *missing], parts, strict=True)
        }
        return found | taken

    def parse(self, record: Mapping[str, Any], where: str) -> Any:
        """Return the conversation of a record; `where` is its place, for errors."""
        return to_messages(record, self.columns, where)

    def _read(self, pattern: str) -> list[Any]:
        in_data_dir = self.data_dir / pattern
        here = Path(pattern).expanduser()
        found = not here.exists() and in_data_dir.exists()
        files = find_files([str(in_data_dir if found else pattern)], "--data.train")
        samples = [sample for file in files for sample in self.read_file(file)]
        if not samples:
            raise UserError(f"{pattern} has no samples.")
        return samples

    def read_file(self, file: Path) -> list[Any]:
        """Return the samples of a file.

        Raises:
            UserError: If it cannot be read.
        """
        samples = []
        for where, record in read_records(file, (*FORMATS, ".json")):
            if isinstance(record, UserError):
                raise record
            samples.append(self.parse(record, where))
        return samples

    # Linked to the model before training.

    @cached_property
    def chat_template(self) -> str:
        """The template of the tokenizer's folder or checkpoint, else ChatML."""
        path = find_tokenizer(self.kind, KINDS, self.data_dir)
        return (None if path is None else read_chat_template(path)) or CHATML

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_or_build(self.kind, KINDS, self._train_tokenizer, self.data_dir)

    def _train_tokenizer(self, _: str) -> Tokenizer:
        texts = (m["content"] for sample in self.conversations["train"] for m in sample)
        return train_bpe(texts, self.bpe_vocab_size, special_tokens=(TURN_START, TURN_END))

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as JSON, for `tokenizers.Tokenizer.from_str`."""
        return self.tokenizer.to_str()

    # From conversations to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, rank_and_world_size(self.trainer)[1])
        if self.splits:
            return
        for split in ("train", "val", "test"):
            samples = self.encode(self.conversations[split])
            fitting = [sample for sample in samples if self.length(sample) <= self.context]
            if not fitting:
                raise UserError(
                    f"All {len(samples):,} {split} samples are longer than the context of "
                    f"{self.context} tokens: increase --data.context."
                )
            if len(fitting) < len(samples):
                rank_zero_warn(
                    f"{len(samples) - len(fitting):,} of {len(samples):,} {split} samples are "
                    f"longer than the context of {self.context} tokens and are left out: increase "
                    "--data.context to use them."
                )
            self.splits[split] = self.to_dataset(fitting)

    def encode(self, conversations: Sequence[Any]) -> list[Any]:
        """Return the tokens and targets of conversations."""
        return encode_answers(self.tokenizer, self.chat_template, conversations)

    def length(self, sample: Any) -> int:
        """Return the number of tokens of a sample."""
        return len(sample.tokens)

    def to_dataset(self, samples: Sequence[Any]) -> Any:
        """Return the data set of a split; an item is a batch."""
        return PackedSamples(samples, self.context)

    @cached_property
    def fingerprint(self) -> str:
        return hash_arrays(
            tensor.numpy() for data in self.splits.values() for tensor in data.tensors
        )

    @property
    def summary(self) -> str:
        """Sizes, and the fractions of targets and of padding, in one line."""
        train = self.splits["train"]
        targets = train.targets != IGNORE_INDEX
        sizes = ", ".join(
            f"{data.num_samples:,} {split} samples in {len(data):,} rows"
            for split, data in self.splits.items()
        )
        return (
            f"{sizes} of {self.context} tokens; {targets.float().mean():.1%} are targets, "
            f"{train.padding:.1%} padding; vocabulary of {self.vocab_size:,}"
        )

    def train_dataloader(self) -> DataLoader:
        rank, world_size = rank_and_world_size(self.trainer)
        rows = self.splits["train"]
        batches = TrainingBatchSampler(len(rows), self.batch_size, self.seed, rank, world_size)
        return BatchLoader(rows, batches=batches, seed=self.seed, rank=rank)

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.evaluation_loader("test")

    def evaluation_loader(self, split: str) -> DataLoader:
        """Return a loader of every row of a split once, over all processes."""
        rows = self.splits[split]
        world = rank_and_world_size(self.trainer)
        return BatchLoader(rows, batches=EvaluationBatchSampler(len(rows), self.batch_size, *world))


def to_messages(record: Mapping[str, Any], columns: Sequence[str], where: str) -> list[Message]:
    """Return the conversation of a record.

    Args:
        record: With `messages`, or the three columns.
        columns: Names of the instruction, the input (optional) and the output.
        where: File and row, for errors.

    Raises:
        UserError: If the record has neither form, or no answer.
    """
    if "messages" in record:
        messages = record["messages"]
        valid = isinstance(messages, list) and all(
            isinstance(m, dict)
            and isinstance(m.get("role"), str)
            and isinstance(m.get("content"), str)
            for m in messages
        )
        if not valid or "assistant" not in [m["role"] for m in messages[1:]]:
            example = json.dumps([{"role": "user", "content": "…"}])
            raise UserError(
                f"{where}, 'messages' must be a list such as {example}, with an answer of the role "
                "assistant after the first message."
            )
        return [{"role": m["role"], "content": m["content"]} for m in messages]
    instruction, given, output = columns
    texts = {name: record.get(name) or "" for name in columns}
    for name in columns:
        if not isinstance(texts[name], str) or not (texts[name].strip() or name == given):
            raise UserError(
                f"{where} has no text in {name!r}; its fields are {', '.join(map(repr, record))}. "
                "Complete the record, or set --data.instruction_column, --data.input_column and "
                "--data.output_column."
            )
    question = texts[instruction].strip()
    if texts[given].strip():
        question += f"\n\n{texts[given].strip()}"
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": texts[output].strip()},
    ]


def encode_answers(
    tokenizer: Tokenizer, template: str, conversations: Sequence[Sequence[Message]]
) -> list[Sample]:
    """Encode conversations; a target is the next token if it is of an answer, else -100.

    Raises:
        UserError: If the template cannot render a conversation.
    """
    try:
        rendered = [answer_spans(template, messages) for messages in conversations]
    except ValueError as error:
        raise UserError(f"{error}.") from error
    texts = [text for text, _ in rendered]
    samples = []
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    for encoding, (_, spans) in zip(encodings, rendered, strict=True):
        tokens = np.array(encoding.ids, dtype=np.int32)  # (T + 1,)
        ends = np.array([end for _, end in encoding.offsets])  # (T + 1,) in characters
        answer = np.zeros(len(tokens), dtype=bool)
        for start, end in spans:
            answer |= (ends > start) & (ends <= end)
        targets = np.where(answer, tokens, IGNORE_INDEX).astype(np.int32)
        samples.append(Sample(tokens[:-1], targets[1:]))
    return samples


def pack(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Distribute samples over few rows: the longest first, each into the fullest row it fits in.

    Args:
        lengths: Tokens of each sample, at most `context`.
        context: Tokens per row.

    Returns:
        The samples of each row.
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # free tokens and number of each row, sorted
    for sample in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        at = bisect_left(spaces, (lengths[sample], -1))
        if at < len(spaces):
            space, row = spaces.pop(at)
        else:
            space, row = context, len(rows)
            rows.append([])
        rows[row].append(sample)
        insort(spaces, (space - lengths[sample], row))
    return rows


class PackedSamples(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Samples packed into rows; an item is a batch of rows.

    Padding is a document of its own without targets.

    Args:
        samples: At most `context` tokens each.
        context: Tokens per row.
    """

    def __init__(self, samples: Sequence[Sample], context: int) -> None:
        self.num_samples = len(samples)
        rows = pack([len(sample.tokens) for sample in samples], context)
        shape = (len(rows), context)
        tokens, documents = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        targets = np.full(shape, IGNORE_INDEX, np.int32)
        for row, members in enumerate(rows):
            start = 0
            for number, member in enumerate(members):
                part = slice(start, start + len(samples[member].tokens))
                tokens[row, part], targets[row, part] = samples[member]
                documents[row, part] = number
                start = part.stop
            documents[row, start:] = len(members)
        used = sum(len(sample.tokens) for sample in samples)
        self.padding = 1 - used / tokens.size
        self.tokens, self.documents, self.targets = self.tensors = tuple(
            torch.from_numpy(array) for array in (tokens, documents, targets)
        )  # each (N, T)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        tokens, documents, targets = (
            tensor.index_select(0, rows).long() for tensor in self.tensors
        )
        return {"input_ids": tokens, "documents": documents}, targets
