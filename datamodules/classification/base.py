"""Texts with one label each, held in memory as tokens: what SST-2, IMDB and AG News share."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer

from datamodules.classification.labeled_texts import LabeledTexts
from datamodules.language_modeling.base import refuse
from datamodules.loading.files import default_data_dir
from datamodules.loading.length_batches import BucketedDataModule, padding_fraction
from datamodules.loading.ragged import LabeledTokens, RaggedTokens
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.tokenization import NUM_BYTES, encode_each
from datamodules.text.tokenizers import choose, file_of, with_cutting_and_padding
from preprocessing.special_tokens import PAD, UNK


class TextClassificationDataModule(BucketedDataModule):
    """Serve `({"input_ids", "attention_mask"}, labels)` of shapes (B, T), (B, T) and (B,).

    A batch holds texts of like length and is as wide as its longest one; the mask is True where
    there is text. The tokenizer is learnt from the training texts alone.

    Args:
        tokenizer: `words`, `characters`, `bpe` (byte pairs), `wordpiece`, or `bert` (BERT's own
            uncased word pieces); or that of a net that was trained before: its checkpoint, a
            `tokenizer.json`, or a Hugging Face folder. With the last two `max_vocab_size`,
            `min_count` and `lowercase` mean nothing.
        max_vocab_size: The most tokens that are learnt.
        min_count: How often a token must occur in the training texts; rarer ones are [UNK].
        lowercase: Read capital letters as small ones.
        context: The most tokens that the net sees of a text; what is longer is cut, and counted.
        batch_size: Texts of an optimizer step over all processes.
        data_dir: Folder of the data sets; the environment's DATA_DIR, else `data`.
        seed: Seed of the order of training texts; train.py links it from `seed_everything`.
    """

    class_names: list[str]

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
    ) -> None:
        super().__init__()
        smallest = NUM_BYTES + 2 if tokenizer == "bpe" else 6
        refuse(
            {
                f"max_vocab_size is {max_vocab_size}: {tokenizer} need {smallest} or more.": (
                    max_vocab_size < smallest
                ),
                f"min_count is {min_count}: it must be 1 or more.": min_count < 1,
                f"context is {context}: a net must see 3 tokens or more.": context < 3,
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
        self.splits: dict[str, LabeledTokens] = {}

    @abstractmethod
    def load(self) -> dict[str, LabeledTexts]:
        """Obtain and read the splits `train`, `val` and `test`."""

    @cached_property
    def texts(self) -> dict[str, LabeledTexts]:
        """The raw texts of all splits. They may be wanted before `setup`, for the vocabulary."""
        texts = self.load()
        for split, (_, labels) in texts.items():
            if not labels:
                raise MisconfigurationException(f"The split {split!r} of the data holds no text.")
        found = set(texts["train"].labels)
        if len(found) < 2:
            name = self.class_names[next(iter(found))]
            raise MisconfigurationException(
                f"All {len(texts['train'].labels):,} training texts have the label {name!r}: there "
                "is nothing to tell apart. Give texts of two classes or more."
            )
        return texts

    # What the net and the task want to know before training.

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What turns one text into tokens, without cutting and padding."""
        return choose(
            self.kind,
            lambda: self.texts["train"].texts,
            self.max_vocab_size,
            self.min_count,
            self.lowercase,
            data_dir=self.data_dir,
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, [PAD] and [UNK] among them."""
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, with cutting and padding, as `Tokenizer.from_str` reads it."""
        return with_cutting_and_padding(self.tokenizer, self.context)

    def _special(self, name: str) -> int:
        number: int = self.tokenizer.token_to_id(name)  # type: ignore[assignment]
        return number

    # From texts to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if self.splits:
            return
        pad, unknown = (self._special(name) for name in (PAD, UNK))
        frame = self.tokenizer.num_special_tokens_to_add(False)  # [CLS] and [SEP], or nothing
        cut, empty = {}, {}
        for split, (texts, labels) in self.texts.items():
            rows = [
                row if len(row) else np.array([unknown], row.dtype)  # a mask must not be empty
                for row in encode_each(self.tokenizer, texts)
            ]
            whole = RaggedTokens.from_sequences(rows)
            empty[split] = sum(not text.strip() for text in texts)
            cut[split] = int((whole.lengths > self.context).sum())
            tokens = whole.truncate(self.context, keep_last=frame > 0)
            self.splits[split] = LabeledTokens(tokens, torch.tensor(labels), pad)
        if any(empty.values()):
            first = next(
                n for t, _ in self.texts.values() for n, x in enumerate(t) if not x.strip()
            )
            split = next(split for split, number in empty.items() if number)
            rank_zero_warn(
                f"Texts without a word in them: {self._counted(empty)}, the first is number "
                f"{first + 1} of {split}. Each is read as one {UNK}."
            )
        if any(cut.values()):
            rank_zero_warn(
                f"Texts longer than the context of {self.context} tokens: {self._counted(cut)}. "
                "What is beyond is not read; a larger --data.context reads more."
            )

    def _counted(self, numbers: dict[str, int]) -> str:
        sizes = {split: len(texts.labels) for split, texts in self.texts.items()}
        return ", ".join(f"{n:,} of {sizes[s]:,} {s}" for s, n in numbers.items() if n)

    @property
    def summary(self) -> str:
        """What was loaded, in a sentence: sizes, unknown tokens, and padding of the first epoch."""
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
            f"{sizes} texts, {lengths.float().mean():.1f} tokens each; {self.vocab_size:,} kinds "
            f"of tokens, unknown are {unknown['train']:.1%} of train and {unknown['val']:.1%} of "
            f"val; padding is {bucketed:.1%} of a batch, {plain:.1%} without sorting by length"
        )
