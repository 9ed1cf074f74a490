"""Labeled texts held in memory as tokens: the part that SST-2, IMDB, AG News and tables share."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import Tokenizer

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import fingerprint
from datamodules.loading.length_batches import (
    BucketBatchSampler,
    BucketedDataModule,
    padding_fraction,
)
from datamodules.loading.ragged import LabeledTokens, RaggedTokens
from datamodules.loading.splits import split_rows
from datamodules.loading.tables import (
    Row,
    Target,
    count_classes,
    read_table,
    readable_label,
    to_targets,
)
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.encoding import encode_batches
from datamodules.text.reading import find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build
from datamodules.text.tokenizers import (
    KINDS,
    NUM_BYTES,
    Kind,
    train_tokenizer,
)
from engine.errors import UserError
from preprocessing.special_tokens import IGNORE_INDEX, PAD, SEP, UNK, special_token_id
from preprocessing.texts import with_truncation_and_padding


class LabeledTexts(NamedTuple):
    """Raw texts or pairs of texts, and their labels: class indices, floats, or lists of indices."""

    texts: list[Any]
    labels: list[Any]

    def select(self, rows: Sequence[int]) -> "LabeledTexts":
        return LabeledTexts([self.texts[row] for row in rows], [self.labels[row] for row in rows])


def split_off(texts: LabeledTexts, size: int, seed: int = 0) -> tuple[LabeledTexts, ...]:
    """Split off `size` random texts; the seed is independent of the run's."""
    rest, part = split_rows(len(texts.labels), size, seed)
    return texts.select(rest), texts.select(part)


class TextClassificationDataModule(BucketedDataModule):
    """Serve `({"input_ids", "attention_mask"}, targets)` of shapes (B, T), (B, T) and (B,).

    A batch holds texts of similar length, padded to the longest; the mask is True at tokens. The
    tokenizer is trained on the training texts only. With a `second_text_column`, a sample is a pair
    of texts, joined as the tokenizer prescribes (`[CLS] first [SEP] second [SEP]` for BERT), and
    the inputs also have `token_type_ids` (B, T): 0 in the first text and 1 in the second.

    Args:
        tokenizer: `words`, `characters`, `bpe` (byte-level byte-pair encoding), `wordpiece`, or
            `bert` (BERT's uncased vocabulary); or the tokenizer of a trained model: its checkpoint,
            a `tokenizer.json`, a Hugging Face folder, `package:NAME` (an installed package that
            contains a model) or the name of a model on the Hugging Face Hub. With the last two
            kinds, `max_vocab_size`, `min_count` and `lowercase` are ignored.
        max_vocab_size: Maximum vocabulary size.
        min_count: Minimum count of a token in the training texts; rarer ones become [UNK].
        lowercase: Convert texts to lower case.
        context: Maximum number of tokens per text; longer texts are truncated, and counted. Of a
            pair, tokens are removed from the end of the longer text.
        batch_size: Global batch size, over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of training texts; train.py links it from `seed_everything`.
        balanced_sampling: Sample all classes equally often in training, with replacement.
        predict: Texts for `predict` instead of the test split: a CSV, TSV, JSON-lines or TXT file
            (one text per line), or a glob pattern; labels are optional.
    """

    class_names: list[str]
    target: Target = "class"
    text_column = "text"
    second_text_column: str | None = None
    label_column = "label"

    def __init__(
        self,
        tokenizer: str = "words",
        max_vocab_size: int = 30_000,
        min_count: int = 1,
        lowercase: bool = True,
        context: int = 256,
        batch_size: int = 64,
        data_dir: str | None = None,
        seed: int = 0,
        balanced_sampling: bool = False,
        predict: str | None = None,
    ) -> None:
        super().__init__()
        smallest = NUM_BYTES + 2 if tokenizer == "bpe" else 6
        if max_vocab_size < smallest:
            raise UserError(
                f"max_vocab_size must be at least {smallest} for the tokenizer {tokenizer}, got "
                f"{max_vocab_size}."
            )
        if min_count < 1:
            raise UserError(f"min_count must be at least 1, got {min_count}.")
        if context < 3:
            raise UserError(f"context must be at least 3, got {context}.")
        if seed < 0:
            raise UserError(f"seed must be at least 0, got {seed}.")
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.min_count = min_count
        self.lowercase = lowercase
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir())
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail now, not after all texts were read
        self.seed = seed
        self.balanced_sampling = balanced_sampling
        self.predict = predict
        self.splits: dict[str, LabeledTokens] = {}

    @abstractmethod
    def load(self) -> dict[str, LabeledTexts]:
        """Obtain and read the splits `train`, `val` and `test`."""

    @cached_property
    def texts(self) -> dict[str, LabeledTexts]:
        """Raw texts of all splits; needed before `setup` for the vocabulary."""
        texts = self.load()
        for split, (_, labels) in texts.items():
            if not labels:
                raise UserError(f"The {split} split has no texts.")
        labels = texts["train"].labels
        if self.target == "class" and len(set(labels)) < 2:
            raise UserError(
                f"All {len(labels):,} training texts have the label "
                f"{self.class_names[labels[0]]!r}: at least two classes are needed."
            )
        return texts

    @cached_property
    def _predict_rows(self) -> list[Row]:
        """The rows to predict, if `predict` names any."""
        if self.predict is None:
            return []
        files = find_files([self.predict], "--data.predict")
        columns = (self.text_column, self.label_column, self.target)
        second = self.second_text_column
        return [
            row
            for file in files
            for row in read_table(file, *columns, labeled=False, second_text_column=second)
        ]

    def raw_texts(self, split: str) -> list[str]:
        """Return the texts of a split before tokenization, by row; pairs are joined by [SEP]."""
        return [t if isinstance(t, str) else f" {SEP} ".join(t) for t in self.texts[split].texts]

    # Linked to the network and the task.

    @property
    def num_classes(self) -> int:
        """Number of classes, or of predicted numbers."""
        return len(self.class_names)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of single texts, without truncation and padding."""
        return load_or_build(self.kind, KINDS, self._train_tokenizer, self.data_dir, (PAD, UNK))

    def _train_tokenizer(self, kind: Kind) -> Tokenizer:
        return train_tokenizer(
            kind,
            _single_texts(self.texts["train"].texts),
            self.max_vocab_size,
            self.min_count,
            self.lowercase,
            data_dir=self.data_dir,
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, including [PAD] and [UNK]."""
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer with truncation and padding, for `Tokenizer.from_str`."""
        return with_truncation_and_padding(self.tokenizer, self.context)

    @property
    def fingerprint(self) -> str:
        """Hash of the training texts and their labels."""
        texts, labels = self.texts["train"]
        return fingerprint(zip(texts, labels, strict=True))["fingerprint"]

    @property
    def class_counts(self) -> list[int]:
        """Number of training texts per class, for class weights."""
        return count_classes(self.texts["train"].labels, self.target, self.num_classes)

    @property
    def predict_columns(self) -> dict[str, list[Any]]:
        """Columns that identify each predicted sample in `predictions.csv`."""
        if not self._predict_rows:
            texts, labels = self.texts["test"]
            return self._text_columns(texts) | {
                f"true_{self.target}": [
                    readable_label(label, self.target, self.class_names) for label in labels
                ],
            }
        columns = self._text_columns([row.text for row in self._predict_rows])
        labels = [row.label for row in self._predict_rows]
        if any(label is not None for label in labels):
            joined = ["; ".join(one) if isinstance(one, list) else one for one in labels]
            columns[f"true_{self.target}"] = joined
        return columns

    def _text_columns(self, texts: list[Any]) -> dict[str, list[Any]]:
        if self.second_text_column is None:
            return {"text": texts}
        return {"text": [pair[0] for pair in texts], "second_text": [pair[1] for pair in texts]}

    def _special(self, name: str) -> int:
        number: int = special_token_id(self.tokenizer, name)  # type: ignore[assignment]
        return number

    # From texts to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if stage == "predict" and self._predict_rows:
            self._setup_splits({"predict": self._predict_texts()})
        elif "train" not in self.splits:
            self._setup_splits(self.texts)

    def _predict_texts(self) -> LabeledTexts:
        """The texts to predict; targets are unknown to the task, and true labels are only shown."""
        texts = [row.text for row in self._predict_rows]
        unknown: Any = {"class": IGNORE_INDEX, "number": float("nan"), "labels": []}[self.target]
        return LabeledTexts(texts, [unknown] * len(texts))

    def _setup_splits(self, texts: dict[str, LabeledTexts]) -> None:
        tokenizer = Tokenizer.from_str(self.tokenizer_json)  # truncates
        tokenizer.no_padding()
        truncated, empty = {}, {}
        for split, (raw, labels) in texts.items():
            empty[split] = sum(map(_is_empty, raw))
            self.splits[split], truncated[split] = self._encode(tokenizer, raw, labels)

        def counted(numbers: dict[str, int]) -> str:
            return ", ".join(f"{n:,} of {len(texts[s][0]):,} {s}" for s, n in numbers.items() if n)

        if any(empty.values()):
            split = next(split for split, number in empty.items() if number)
            first = next(n for n, text in enumerate(texts[split].texts, 1) if _is_empty(text))
            rank_zero_warn(
                f"Empty texts: {counted(empty)}; the first is number {first} of {split}. Each "
                f"becomes one {UNK}."
            )
        if any(truncated.values()):
            rank_zero_warn(
                f"Texts longer than the context of {self.context} tokens: {counted(truncated)}. "
                "They are truncated; increase --data.context to read more of them."
            )

    def _encode(
        self, tokenizer: Tokenizer, texts: list[Any], labels: list[Any]
    ) -> tuple[LabeledTokens, int]:
        """Return the tokens of texts with their targets, and the number of truncated texts."""
        rows, types, truncated = [], [], 0
        unknown = self._special(UNK)
        for encoding in encode_batches(tokenizer, texts):
            rows.append(np.array(encoding.ids or [unknown], np.int32))  # no mask may be empty
            if self.second_text_column is not None:
                types.append(np.array(encoding.type_ids or [0], np.int32))
            truncated += bool(encoding.overflowing)
        tokens = LabeledTokens(
            RaggedTokens.from_sequences(rows),
            to_targets(labels, self.target, self.num_classes),
            self._special(PAD),
            RaggedTokens.from_sequences(types) if types else None,
        )
        return tokens, truncated

    def _batches(self, **kwargs: Any) -> BucketBatchSampler:
        if self.balanced_sampling:
            if self.target != "class":
                raise UserError("balanced_sampling needs --data.target class.")
            kwargs["classes"] = self.splits["train"].labels
        return super()._batches(**kwargs)

    @property
    def summary(self) -> str:
        """Sizes, fraction of unknown tokens, and padding of the first epoch, in one sentence."""
        train = self.splits["train"]
        unknown = {
            split: torch.eq(self.splits[split].texts.tokens, self._special(UNK)).float().mean()
            for split in ("train", "val")
        }
        lengths = train.lengths
        bucketed, plain = (
            padding_fraction(lengths[sampler.batches()])
            for sampler in (self._batches(), self._batches(pool=1))
        )
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in self.splits.items())
        return (
            f"{sizes} texts, {lengths.float().mean():.1f} tokens per text; vocabulary of "
            f"{self.vocab_size:,} tokens, {unknown['train']:.1%} of train and {unknown['val']:.1%} "
            f"of val unknown; padding {bucketed:.1%} of a batch ({plain:.1%} without bucketing)"
        )


def _single_texts(texts: Sequence[Any]) -> list[str]:
    return [one for text in texts for one in ([text] if isinstance(text, str) else text)]


def _is_empty(text: Any) -> bool:
    """Return whether a text, or one of a pair, is empty."""
    return not all(one.strip() for one in _single_texts([text]))
