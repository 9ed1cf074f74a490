"""Texts with a tag for each word, such as named entities: JSON lines or files of CoNLL's format."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.classification.text_table import add_missing_splits
from datamodules.loading.fingerprint import fingerprint, warn_if_changed
from datamodules.loading.ragged import Inputs, LabeledTokens, RaggedTokens
from datamodules.loading.tables import read_records
from datamodules.text.encoding import encode_batches
from datamodules.text.reading import read_utf8
from engine.errors import UserError
from preprocessing.special_tokens import IGNORE_INDEX, PAD, UNK
from preprocessing.texts import first_tokens

TAG = re.compile(r"O|[BI]-\S+")
DOCUMENT_START = "-DOCSTART-"


class TaggedText(NamedTuple):
    """The words of a text with their tags."""

    where: str  # "train.conll, line 17", for error messages
    words: list[str]
    tags: list[str]


class TaggedTokens(LabeledTokens):
    """Texts whose targets are the tags of all tokens; an item is a padded batch."""

    labels: Any  # RaggedTokens with IGNORE_INDEX at tokens without a tag

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        tags = self.labels.pad_batch(rows, IGNORE_INDEX)["input_ids"]
        return self.texts.pad_batch(rows, self.pad), tags


class TaggedTexts(TextClassificationDataModule):
    """Your own texts with a BIO tag for each word, for modules.TokenClassifier.

    Files are JSON lines with a list of words and a list of tags, or have CoNLL's format: one word
    per line, its tag in the last column, an empty line after each sentence. Tags are `O`,
    `B-<kind>` and `I-<kind>`. The targets are (B, T): the tag of a word at its first token, and
    IGNORE_INDEX at all others. Also takes the arguments of TextClassificationDataModule.

    Args:
        train: Training file, `*.jsonl` or any other name for CoNLL's format; may be compressed.
        val: Validation file; without it, `val_fraction` of the training file.
        test: Test file; without it, `test_fraction` of the training file.
        words_column: JSON field of the words.
        tags_column: JSON field of the tags.
        val_fraction: Between 0 and 1.
        test_fraction: Between 0 and 1.
    """

    target: Any = "tags"

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        words_column: str = "tokens",
        tags_column: str = "tags",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if self.predict is not None:
            raise UserError("TaggedTexts has no --data.predict: use TokenClassifier.tag(texts).")
        self.files = {"train": train, "val": val, "test": test}
        self.text_column, self.label_column = words_column, tags_column
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @cached_property
    def _rows(self) -> dict[str, list[TaggedText]]:
        return {
            split: self._read(Path(file).expanduser())
            for split, file in self.files.items()
            if file is not None
        }

    def _read(self, path: Path) -> list[TaggedText]:
        json_lines = path.name.lower().removesuffix(".gz").endswith(".jsonl")
        texts = self._read_json_lines(path) if json_lines else _read_conll(path)
        rows = [text for text in texts if text.words]
        for where, words, tags in rows:
            if len(words) != len(tags):
                raise UserError(f"{where} has {len(words)} words and {len(tags)} tags.")
            if wrong := [tag for tag in tags if not TAG.fullmatch(tag)]:
                raise UserError(
                    f"{where} has the tag {wrong[0]!r}: tags are O, B-<kind> and I-<kind>."
                )
        if not rows:
            raise UserError(f"{path} has no texts.")
        return rows

    def _read_json_lines(self, path: Path) -> Iterator[TaggedText]:
        for where, record in read_records(path):
            if isinstance(record, UserError):
                raise record
            lists = [record.get(name) for name in (self.text_column, self.label_column)]
            for name, values in zip((self.text_column, self.label_column), lists, strict=True):
                if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                    raise UserError(
                        f"{where} has no list of words in {name!r}; its fields are "
                        f"{', '.join(map(repr, record))}. Set --data.words_column and "
                        "--data.tags_column."
                    )
            yield TaggedText(where, *lists)  # type: ignore[arg-type]  # checked above

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """The tags of the training file: O, then sorted."""
        tags = {tag for row in self._rows["train"] for tag in row.tags}
        return ["O", *sorted(tags - {"O"})]

    def load(self) -> dict[str, LabeledTexts]:
        numbers = {tag: number for number, tag in enumerate(self.class_names)}
        splits = {}
        for split, rows in self._rows.items():
            for where, _, tags in rows:
                if unknown := [tag for tag in tags if tag not in numbers]:
                    raise UserError(
                        f"{where} has the tag {unknown[0]!r}, which the training file has not."
                    )
            labels = [[numbers[tag] for tag in row.tags] for row in rows]
            splits[split] = LabeledTexts([row.words for row in rows], labels)
        return add_missing_splits(splits, self.fractions, stratify=False)

    def raw_texts(self, split: str) -> list[str]:
        """Return the texts of a split, the words separated by spaces, by row."""
        return [" ".join(words) for words in self.texts[split].texts]

    @property
    def predict_columns(self) -> dict[str, list[Any]]:
        """Columns that identify each predicted text."""
        return {"text": self.raw_texts("test")}

    def _encode(
        self, tokenizer: Tokenizer, texts: list[Any], labels: list[Any]
    ) -> tuple[LabeledTokens, int]:
        tokens, targets, truncated = [], [], 0
        encodings = encode_batches(tokenizer, texts, is_pretokenized=True)
        for encoding, tags in zip(encodings, labels, strict=True):
            ids = encoding.ids or [self._special(UNK)]  # no mask may be empty
            target = np.full(len(ids), IGNORE_INDEX, np.int32)
            for word, position in first_tokens(encoding).items():
                target[position] = tags[word]
            tokens.append(np.array(ids, np.int32))
            targets.append(target)
            truncated += bool(encoding.overflowing)
        labels_of_tokens: Any = RaggedTokens.from_sequences(targets)
        pad = self._special(PAD)
        return TaggedTokens(RaggedTokens.from_sequences(tokens), labels_of_tokens, pad), truncated

    def state_dict(self) -> dict[str, str]:
        """Save a fingerprint of the training texts in checkpoints."""
        return fingerprint(zip(*self.texts["train"], strict=True))

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        warn_if_changed(self, state_dict)


def _read_conll(path: Path) -> Iterator[TaggedText]:
    """Read one word per line, separated by white space from its tag in the last column."""
    if not path.is_file():
        raise UserError(f"No file {path} (looked for from {Path.cwd()}): correct its name.")
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_utf8(path).split("\n"), ""], start=1):
        columns = line.split()
        if columns and columns[0] != DOCUMENT_START:
            if len(columns) < 2:
                raise UserError(f"{path}, line {number} has a word without a tag: {line!r}.")
            words.append(columns[0])
            tags.append(columns[-1])
        elif words:
            yield TaggedText(f"{path}, line {number - len(words)}", words, tags)
            words, tags = [], []
