"""Running text for word vectors: whole texts as rows of the numbers of their words."""

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

NO_LIMIT = 2**31 - 1  # of the size of a vocabulary


class RunningText(L.LightningDataModule):
    """Texts whose words are numbered by how frequent they are; rare words are taken out.

    Words are what `datamodules.text.tokenizers` takes for one, less punctuation; they are counted
    in the training texts alone. Validation judges texts that were held out, and then asks the
    benchmarks (see `datamodules.word_vectors.word_benchmarks`), leaving out questions with unknown words.

    Args:
        text: `imdb` (its 50,000 reviews less the 2,500 that validate; labels are not looked at),
            `source` (Python's own standard library), or names of text files, where `*`, `?` and
            `**` stand for many: plain text or JSON lines (`*.jsonl`, the field `text`), either
            perhaps packed (`*.gz`).
        min_count: How often a word must occur to have a vector.
        max_vocab_size: The most words, [PAD] and [UNK] among them; all unless given.
        lowercase: Read capital letters as small ones. Benchmarks ask in small letters.
        val_fraction: The share of the characters, taken from the end, that validates; IMDB has a
            split of its own.
        benchmarks: Of wordsim353, wordsim353_similarity, wordsim353_relatedness, simlex999 and
            analogies, those to ask.
        batch_size: Of a step, over all processes; see the subclass for what is counted.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
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

    # From texts to numbers.

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """The raw texts that train and those that validate."""
        if self.text == "imdb":
            reviews = IMDB(data_dir=str(self.data_dir)).load()
            return {
                "train": reviews["train"].texts + reviews["test"].texts,
                "val": reviews["val"].texts,
            }
        whole = [
            "".join(pieces) for path in self._paths() for pieces in read_documents(path, "text")
        ]
        return cut_in_two(whole, self.val_fraction)

    def _paths(self) -> list[Path]:
        if self.text == "source":
            return PythonSource().find()
        return find_files(self.text, "--data.text")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns a text into numbers of words; rare ones become [UNK]."""
        made = train_tokenizer(
            "words",
            self.texts["train"],
            self.max_vocab_size or NO_LIMIT,
            self.min_count,
            self.lowercase,
            punctuation=False,
        )
        words = made.get_vocab_size() - 2  # less [PAD] and [UNK]
        if words < 2:
            size = sum(map(len, self.texts["train"]))
            raise UserError(
                f"The text is too small: of its {size:,} characters {words} words occur "
                f"{self.min_count} times or more, and vectors need 2. Give more text by "
                "--data.text, or a smaller --data.min_count."
            )
        return made

    @property
    def vocab_size(self) -> int:
        """Number of words, [PAD] and [UNK] among them, which occur nowhere."""
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as `tokenizers.Tokenizer.from_str` reads it."""
        return self.tokenizer.to_str()

    @cached_property
    def words(self) -> dict[str, RaggedTokens]:
        """The numbers of the known words of each text, by split."""
        return {split: self._numbered(texts) for split, texts in self.texts.items()}

    def _numbered(self, texts: Iterable[str]) -> RaggedTokens:
        pieces = [list(split_into_chunks([text])) for text in texts]  # a file may be one long text
        rows = RaggedTokens.from_sequences(
            encode_texts(self.tokenizer, (p for text in pieces for p in text))
        )
        ends = torch.tensor([0, *map(len, pieces)]).cumsum(0)  # of each text, in pieces
        whole = RaggedTokens(rows.tokens, rows.offsets[ends])
        unknown: int = self.tokenizer.token_to_id(UNK)  # type: ignore[assignment]
        return whole.drop(unknown)

    @cached_property
    def counts(self) -> Tensor:
        """How often each word occurs in the training texts, (V,), int64."""
        return torch.bincount(self.words["train"].tokens, minlength=self.vocab_size)

    @cached_property
    def questions(self) -> list[Questions]:
        """What the benchmarks ask, by sections."""
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
                    f"The text is too short: {len(words.tokens)} known words are left to {split}, "
                    "and 2 are needed. Give more text by --data.text, or a smaller "
                    "--data.min_count."
                )

    @property
    def _world(self) -> tuple[int, int]:
        return rank_and_world_size(self.trainer)

    @property
    def summary(self) -> str:
        """What was loaded, in a sentence, with what the benchmarks ask and the words lack."""
        train = self.words["train"]
        told = (
            f"{len(train.tokens):,} words in {len(train):,} texts, {self.vocab_size - 2:,} "
            f"different ones that occur {self.min_count} times or more"
        )
        for name in self.benchmarks:
            sections = [q for q in self.questions if q.name.partition("/")[0] == name]
            known, asked = (sum(n) for n in zip(*((len(q.words), q.asked) for q in sections)))  # noqa: B905
            unknown = sorted({word for q in sections for word in q.unknown})
            told += f"; {name}: {known:,} of {asked:,} questions asked"
            if unknown:
                more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
                told += f", unknown are {', '.join(unknown[:3])}{more}"
        return told

    # From numbers to batches.

    @abstractmethod
    def held_out(self) -> Dataset:
        """Batches of what validates."""

    def val_dataloader(self) -> DataLoader:
        return val_loader(Examination(self.held_out(), self.questions))


class Examination(Dataset[tuple[dict[str, Tensor], Tensor]]):
    """Batches of held-out text, then a batch for each section of a benchmark.

    A section's inputs are `{its name: numbers of words (N, 2) or (N, 3), "asked": (1,)}`. Every
    process answers all questions: their vectors are the same.

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
        return {
            section.name: section.words,
            "asked": torch.tensor([section.asked]),
        }, section.answers


def cut_in_two(texts: Sequence[str], fraction: float) -> dict[str, list[str]]:
    """The texts without the last `fraction` of their characters, and that; one may be cut."""
    left = int(sum(map(len, texts)) * (1 - fraction))
    train, val = [], []
    for text in texts:
        train.append(text[:left])
        val.append(text[left:])
        left = max(0, left - len(text))
    return {"train": [t for t in train if t], "val": [t for t in val if t]}
