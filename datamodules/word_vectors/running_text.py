"""Base of the data modules for word vectors: texts as sequences of word indices."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.classification.imdb import IMDB
from datamodules.language_modeling.source import PythonSource
from datamodules.language_modeling.token_batches import val_loader
from datamodules.loading.files import default_data_dir
from datamodules.loading.loader import rank_and_world_size
from datamodules.loading.ragged import RaggedTokens
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.encoding import encode_texts, split_into_chunks
from datamodules.text.reading import find_files, read_documents
from datamodules.text.tokenizers import train_tokenizer
from datamodules.word_vectors import word_benchmarks
from datamodules.word_vectors.word_benchmarks import Questions
from engine.errors import UserError
from preprocessing.special_tokens import UNK

UNLIMITED = 2**31 - 1  # vocabulary size


class RunningText(L.LightningDataModule):
    """Texts as word indices, the most frequent word first; rare words are dropped.

    Words are those of the tokenizer `words` without punctuation, counted in the training texts.
    Validation evaluates held-out texts, then the benchmarks of
    `datamodules.word_vectors.word_benchmarks` without the questions that have unknown words.

    Args:
        text: `imdb` (its 50,000 reviews, without labels; 2,500 for validation), `source` (Python's
            standard library), or text files or patterns with `*`, `?` and `**`: plain text or JSON
            lines (`*.jsonl`, key `text`), compressed (`*.gz`) or not.
        min_count: Occurrences that a word needs to have a vector.
        max_vocab_size: Maximum vocabulary, including [PAD] and [UNK]; unlimited by default.
        lowercase: Convert texts to lower case, as the benchmarks are.
        val_fraction: Fraction of the characters, at the end, for validation; not for `imdb`.
        benchmarks: Any of wordsim353, wordsim353_similarity, wordsim353_relatedness, simlex999 and
            analogies; all by default.
        batch_size: Global batch size; see the subclass for the unit.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        seed: Seed of the run; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        text: str | list[str] = "imdb",
        min_count: int = 5,
        max_vocab_size: int | None = None,
        lowercase: bool = True,
        val_fraction: float = 0.05,
        benchmarks: list[str] | None = None,
        batch_size: int = 2048,
        data_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        benchmarks = list(word_benchmarks.FILES) if benchmarks is None else benchmarks
        if min_count < 1:
            raise UserError(f"data.min_count must be at least 1, got {min_count}.")
        if max_vocab_size is not None and max_vocab_size < 4:
            raise UserError(f"data.max_vocab_size must be at least 4, got {max_vocab_size}.")
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, got {val_fraction}.")
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}.")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}.")
        for name in benchmarks:
            if name not in word_benchmarks.FILES:
                raise UserError(
                    f"data.benchmarks: unknown benchmark {name!r}; choose from "
                    f"{', '.join(word_benchmarks.FILES)}."
                )
        if not text:
            raise UserError("data.text is empty: set it to imdb, source or text files.")
        self.text = text
        self.min_count = min_count
        self.max_vocab_size = max_vocab_size
        self.lowercase = lowercase
        self.val_fraction = val_fraction
        self.benchmarks = benchmarks
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        self.seed = seed

    def prepare_data(self) -> None:
        for name in self.benchmarks:
            word_benchmarks.find(name, self.data_dir)
        if self.text == "imdb":
            IMDB(data_dir=str(self.data_dir)).prepare_data()

    # From texts to word indices.

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """The raw texts for training and validation."""
        if self.text == "imdb":
            reviews = IMDB(data_dir=str(self.data_dir)).load()
            return {
                "train": reviews["train"].texts + reviews["test"].texts,
                "val": reviews["val"].texts,
            }
        if self.text == "source":
            paths = PythonSource().find()
        else:
            paths = find_files(self.text, "--data.text")
        documents = ["".join(pieces) for path in paths for pieces in read_documents(path, "text")]
        return split_texts(documents, self.val_fraction)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of words; rare ones become [UNK]."""
        tokenizer = train_tokenizer(
            "words",
            self.texts["train"],
            self.max_vocab_size or UNLIMITED,
            self.min_count,
            self.lowercase,
            punctuation=False,
        )
        words = tokenizer.get_vocab_size() - 2  # without [PAD] and [UNK]
        if words < 2:
            size = sum(map(len, self.texts["train"]))
            raise UserError(
                f"The text is too small: in its {size:,} characters only {words} words occur "
                f"{self.min_count} times or more, and vectors need 2. Give more text in "
                "--data.text, or a smaller --data.min_count."
            )
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of words, including [PAD] and [UNK], which never occur."""
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as JSON, for `tokenizers.Tokenizer.from_str`."""
        return self.tokenizer.to_str()

    @cached_property
    def words(self) -> dict[str, RaggedTokens]:
        """Indices of the known words of each text, by split."""
        return {split: self._encode(texts) for split, texts in self.texts.items()}

    def _encode(self, texts: Iterable[str]) -> RaggedTokens:
        chunks = [list(split_into_chunks([text])) for text in texts]  # a file may be one long text
        encoded = RaggedTokens.from_sequences(
            encode_texts(self.tokenizer, (chunk for text in chunks for chunk in text))
        )
        ends = torch.tensor([0, *map(len, chunks)]).cumsum(0)  # of each text, in chunks
        joined = RaggedTokens(encoded.tokens, encoded.offsets[ends])
        unknown: int = self.tokenizer.token_to_id(UNK)  # type: ignore[assignment]
        return joined.drop(unknown)

    @cached_property
    def counts(self) -> Tensor:
        """Occurrences of each word in the training texts, (V,), int64."""
        return torch.bincount(self.words["train"].tokens, minlength=self.vocab_size)

    @cached_property
    def questions(self) -> list[Questions]:
        """The questions of the benchmarks, by section."""
        vocabulary = self.tokenizer.get_vocab()
        return [
            section
            for name in self.benchmarks
            for section in word_benchmarks.read(
                name, word_benchmarks.find(name, self.data_dir), vocabulary
            )
        ]

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        for split, words in self.words.items():
            if len(words.tokens) < 2:
                raise UserError(
                    f"The text is too short: the {split} split has {len(words.tokens)} known words "
                    "and needs 2. Give more text in --data.text, or a smaller --data.min_count."
                )

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    @property
    def summary(self) -> str:
        """Sizes, and the questions and unknown words of the benchmarks, in one line."""
        train = self.words["train"]
        summary = (
            f"{len(train.tokens):,} words in {len(train):,} texts, vocabulary of "
            f"{self.vocab_size - 2:,} words with at least {self.min_count} occurrences"
        )
        for name in self.benchmarks:
            sections = [q for q in self.questions if q.name.partition("/")[0] == name]
            known = sum(len(section.words) for section in sections)
            asked = sum(section.asked for section in sections)
            unknown = sorted({word for section in sections for word in section.unknown})
            summary += f"; {name}: {known:,} of {asked:,} questions"
            if unknown:
                more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
                summary += f", unknown words: {', '.join(unknown[:3])}{more}"
        return summary

    # From word indices to batches.

    @abstractmethod
    def held_out(self) -> Dataset:
        """Return the batches of held-out text."""

    def val_dataloader(self) -> DataLoader:
        return val_loader(HeldOutAndQuestions(self.held_out(), self.questions))


class HeldOutAndQuestions(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Batches of held-out text, then a batch for each section of a benchmark.

    The inputs of a section are `{its name: word indices (N, 2) or (N, 3), "asked": (1,)}`. Every
    process evaluates all questions, since all have the same vectors.

    Args:
        held_out: The first batches.
        questions: The sections.
    """

    def __init__(self, held_out: Any, questions: Sequence[Questions]) -> None:
        self.held_out = held_out
        self.questions = questions

    def __len__(self) -> int:
        return len(self.held_out) + len(self.questions)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        if index < len(self.held_out):
            return self.held_out[index]
        section = self.questions[index - len(self.held_out)]
        inputs = {section.name: section.words, "asked": torch.tensor([section.asked])}
        return inputs, section.answers


def split_texts(texts: Sequence[str], fraction: float) -> dict[str, list[str]]:
    """Split off the last `fraction` of the characters for validation; one text may be split."""
    remaining = int(sum(map(len, texts)) * (1 - fraction))
    train, val = [], []
    for text in texts:
        train.append(text[:remaining])
        val.append(text[remaining:])
        remaining = max(0, remaining - len(text))
    return {"train": [t for t in train if t], "val": [t for t in val if t]}
