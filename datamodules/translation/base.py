"""Base of the data modules for translation: sentence pairs held in memory as tokens."""

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from tokenizers import Tokenizer, processors
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.loading.files import default_data_dir
from datamodules.loading.fingerprint import hash_arrays
from datamodules.loading.length_batches import BucketedDataModule, padding_fraction
from datamodules.loading.ragged import Inputs, RaggedTokens
from datamodules.loading.whole_batches import local_batch_size
from datamodules.text.encoding import encode_texts
from datamodules.text.reading import read_utf8
from datamodules.text.tokenizer_files import find_tokenizer, load_tokenizer
from datamodules.text.tokenizers import (
    NUM_BYTES,
    Kind,
    train_tokenizer,
)
from datamodules.text.unchanged import UnchangedText
from engine.errors import UserError
from preprocessing.special_tokens import BOS, EOS, IGNORE_INDEX, PAD, UNK
from preprocessing.texts import with_truncation_and_padding

KINDS = ("bpe", "words")
SPECIAL_TOKENS = (PAD, UNK, BOS, EOS)


class ParallelTexts(NamedTuple):
    """Sentences and their translations."""

    sources: list[str]
    targets: list[str]

    def select(self, rows: list[int]) -> "ParallelTexts":
        return ParallelTexts([self.sources[r] for r in rows], [self.targets[r] for r in rows])


class TranslationPairs(Dataset[tuple[Inputs, Tensor]]):
    """N pairs; an item is a padded batch of them.

    Args:
        sources: N sentences, each ending with [EOS].
        targets: Their translations, each from [BOS] to [EOS].
        pads: Padding tokens of the source and the target.
        references: The raw translations as UTF-8 bytes, for evaluation.
    """

    def __init__(
        self,
        sources: RaggedTokens,
        targets: RaggedTokens,
        pads: tuple[int, int],
        references: RaggedTokens | None = None,
    ) -> None:
        self.sources = sources
        self.targets = targets
        self.pads = pads
        self.references = references

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Tensor) -> tuple[Inputs, Tensor]:
        inputs = self.sources.pad_batch(rows, self.pads[0])  # (B, S)
        targets = self.targets.pad_batch(rows, self.pads[1])  # (B, T + 1), from [BOS] to [EOS]
        mask = targets["attention_mask"][:, 1:]  # (B, T)
        # Mask [EOS] in the decoder input: it has no target.
        inputs["decoder_input_ids"] = targets["input_ids"][:, :-1].masked_fill(~mask, self.pads[1])
        if self.references is not None:
            inputs["references"] = self.references.pad_batch(rows, 0)["input_ids"]  # (B, bytes)
        return inputs, targets["input_ids"][:, 1:].masked_fill(~mask, IGNORE_INDEX)  # (B, T)

    @property
    def lengths(self) -> Tensor:
        """Sort keys that bring pairs of similar length together, (N,).

        Sort by the longer side of a pair, then by the source: on Multi30k 8 % of a batch are
        padding, against 24 % and 3 % of the two sides when sorting by the target first.
        """
        sources, targets = self.sources.lengths, self.targets.lengths
        return torch.maximum(sources, targets) * (sources.max() + 1) + sources

    @property
    def source_lengths(self) -> Tensor:
        return self.sources.lengths


class TranslationDataModule(UnchangedText, BucketedDataModule):
    """Serve `({"input_ids", "attention_mask", "decoder_input_ids"}, targets)`.

    Shapes are (B, S), (B, S), (B, T) and (B, T). A batch has sentences of similar length and is
    padded to its longest ones; the mask is True where the source has tokens. The decoder input is
    [BOS] and the translation, the targets are the translation and [EOS]; padded targets are -100
    (ignored). Validation and test batches also have `references`, the raw translations as UTF-8
    bytes, padded with 0.

    Args:
        tokenizer: `bpe` (byte-level, lossless) or `words`, trained on the training pairs; or that
            of another model: the checkpoint of a Translator, or a tokenizer.json or Hugging Face
            folder with [PAD], [UNK], [BOS] and [EOS], for both languages. With the latter
            `max_vocab_size`, `min_count`, `lowercase` and `shared` have no effect.
        max_vocab_size: Maximum size of each vocabulary.
        min_count: Occurrences in the training texts that a token needs.
        lowercase: Convert texts, and so the translations, to lower case.
        shared: One vocabulary for both languages, or one for each.
        context: Maximum tokens of a sentence including [BOS] and [EOS]; longer ones are truncated,
            and counted in a warning.
        batch_size: Pairs per batch over all processes.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        predict: File of source sentences, one per line, for `predict`; by default the test split.
        seed: Seed of the order of training pairs; train.py links it from `seed_everything`.
    """

    def __init__(
        self,
        tokenizer: str = "bpe",
        max_vocab_size: int = 8_000,
        min_count: int = 2,
        lowercase: bool = False,
        shared: bool = True,
        context: int = 64,
        batch_size: int = 128,
        data_dir: str | None = None,
        predict: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        smallest = (NUM_BYTES if tokenizer == "bpe" else 1) + len(SPECIAL_TOKENS)
        if max_vocab_size < smallest:
            raise UserError(
                f"data.max_vocab_size must be at least {smallest} for {tokenizer}, got "
                f"{max_vocab_size}."
            )
        if min_count < 1:
            raise UserError(f"data.min_count must be at least 1, got {min_count}.")
        if context < 3:
            raise UserError(f"data.context must be at least 3, got {context}.")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}.")
        self.kind = tokenizer
        self.max_vocab_size = max_vocab_size
        self.min_count = min_count
        self.lowercase = lowercase
        self.shared = shared
        self.context = context
        self.batch_size = batch_size
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail before the texts are read
        self.predict = predict
        self.seed = seed
        self.splits: dict[str, TranslationPairs] = {}

    @abstractmethod
    def load(self) -> dict[str, ParallelTexts]:
        """Obtain and read the splits `train`, `val` and `test`."""

    @cached_property
    def texts(self) -> dict[str, ParallelTexts]:
        """The raw sentences of all splits; may be needed before `setup`, for the vocabulary.

        Training pairs with an empty side are dropped, and counted in a warning.
        """
        texts = dict(self.load())
        train, size = texts["train"], len(texts["train"].sources)
        complete = [row for row, pair in enumerate(zip(*train, strict=True)) if all(pair)]
        if not complete:
            raise UserError("The training split contains no pair of sentences.")
        if len(complete) < size:
            first = next(n for n, row in enumerate([*complete, -1]) if n != row)
            rank_zero_warn(
                f"Dropped {size - len(complete):,} of {size:,} training pairs with an empty side; "
                f"the first is line {first + 1}."
            )
            texts["train"] = train.select(complete)
        if self.predict is not None:
            lines = read_lines(Path(self.predict).expanduser())
            texts["predict"] = ParallelTexts(lines, [""] * len(lines))
        return texts

    # Linked to the model before training.

    @cached_property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """The tokenizers of source (… [EOS]) and target ([BOS] … [EOS])."""
        path = find_tokenizer(self.kind, KINDS, self.data_dir)
        source, target = self._train_tokenizers() if path is None else load_pair(path)
        for tokenizer, template in ((source, f"$A {EOS}"), (target, f"{BOS} $A {EOS}")):
            tokenizer.post_processor = processors.TemplateProcessing(
                single=template,
                special_tokens=[(name, tokenizer.token_to_id(name)) for name in (BOS, EOS)],
            )
        return source, target

    def _train_tokenizers(self) -> list[Tokenizer]:
        train = self.texts["train"]
        corpora = [[*train.sources, *train.targets]] if self.shared else [*train]
        kind: Kind = self.kind  # type: ignore[assignment]
        trained = [
            train_tokenizer(
                kind,
                texts,
                self.max_vocab_size,
                self.min_count,
                self.lowercase,
                special_tokens=(BOS, EOS),
            )
            for texts in corpora
        ]
        return [Tokenizer.from_str(trained[index].to_str()) for index in (0, -1)]

    @property
    def shared_vocabulary(self) -> bool:
        """Whether both languages have the same tokens."""
        if self.kind in KINDS:
            return self.shared
        source, target = self.tokenizers
        return source.get_vocab() == target.get_vocab()

    @property
    def source_vocab_size(self) -> int:
        return self.tokenizers[0].get_vocab_size()

    @property
    def target_vocab_size(self) -> int:
        return self.tokenizers[1].get_vocab_size()

    @property
    def source_tokenizer_json(self) -> str:
        """The source tokenizer with truncation and padding as JSON, for `Tokenizer.from_str`."""
        return with_truncation_and_padding(self.tokenizers[0], self.context)

    @property
    def target_tokenizer_json(self) -> str:
        """The target tokenizer, likewise."""
        return with_truncation_and_padding(self.tokenizers[1], self.context)

    # From sentences to batches.

    def setup(self, stage: str) -> None:
        local_batch_size(self.batch_size, self._world[1])
        if self.splits:
            return
        pads = (self._token_id(0, PAD), self._token_id(1, PAD))
        truncated = {}
        for split, texts in self.texts.items():
            full = [
                RaggedTokens.from_sequences(encode_texts(tokenizer, sentences))
                for tokenizer, sentences in zip(self.tokenizers, texts, strict=True)
            ]
            too_long = (full[0].lengths > self.context) | (full[1].lengths > self.context)
            truncated[split] = int(too_long.sum())
            sources, targets = (tokens.truncate(self.context, keep_last=True) for tokens in full)
            references = None if split == "train" else utf8_bytes(texts.targets)
            self.splits[split] = TranslationPairs(sources, targets, pads, references)
        if any(truncated.values()):
            counts = ", ".join(
                f"{number:,} of {len(self.splits[split]):,} {split}"
                for split, number in truncated.items()
                if number
            )
            rank_zero_warn(
                f"Pairs longer than the context of {self.context} tokens are truncated: {counts}. "
                "A larger --data.context keeps more."
            )

    @cached_property
    def fingerprint(self) -> str:
        pairs = (self.splits[split] for split in ("train", "val"))
        return hash_arrays(
            side.tokens.numpy() for pair in pairs for side in (pair.sources, pair.targets)
        )

    def _token_id(self, language: int, name: str) -> int:
        token: int = self.tokenizers[language].token_to_id(name)  # type: ignore[assignment]
        return token

    @property
    def summary(self) -> str:
        """Sizes, unknown tokens and the padding of the first epoch, in one line."""
        train, val = self.splits["train"], self.splits["val"]
        unknown = torch.eq(val.sources.tokens, self._token_id(0, UNK)).float().mean()
        if self.shared_vocabulary:
            vocabularies = f"shared vocabulary of {self.source_vocab_size:,}"
        else:
            vocabularies = (
                f"vocabularies of {self.source_vocab_size:,} and {self.target_vocab_size:,}"
            )
        bucketed, plain = (
            [
                padding_fraction(side.lengths[self._batches(**pool).batches()])
                for side in (train.sources, train.targets)
            ]
            for pool in ({}, {"pool": 1})
        )
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in self.splits.items())
        lengths = [side.lengths.float().mean() for side in (train.sources, train.targets)]
        return (
            f"{sizes} pairs of {lengths[0]:.1f} and {lengths[1]:.1f} tokens; {vocabularies}, "
            f"{unknown:.1%} of val unknown; padding {bucketed[0]:.1%} and {bucketed[1]:.1%} of a "
            f"batch ({plain[0]:.1%} and {plain[1]:.1%} without sorting by length)"
        )


def load_pair(path: Path) -> tuple[Tokenizer, Tokenizer]:
    """Load the tokenizers of source and target.

    Raises:
        UserError: If they cannot be read or lack a special token.
    """
    source, target = (
        load_tokenizer(path, (f"{side}_tokenizer", "tokenizer")) for side in ("source", "target")
    )
    for tokenizer in (source, target):
        missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            raise UserError(
                f"the tokenizer of {path} has no {' or '.join(missing)} token: choose that of a "
                "Translator, or one of bpe, words."
            )
    return source, target


def utf8_bytes(texts: list[str]) -> RaggedTokens:
    return RaggedTokens.from_sequences(np.frombuffer(text.encode(), np.uint8) for text in texts)


def read_lines(path: Path) -> list[str]:
    """Read the sentences of a UTF-8 file, one per line, without surrounding whitespace.

    Raises:
        UserError: If the file is missing, empty or not text.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path} (searched from {Path.cwd()}).")
    text = read_utf8(path)
    if not text.strip():
        raise UserError(f"{path} contains no sentence: write one per line.")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


def read_pairs(source: Path, target: Path) -> ParallelTexts:
    """Read two files that are translations of each other, line by line.

    Raises:
        UserError: If one cannot be read, or their numbers of lines differ.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise UserError(
            f"{source} has {len(sources):,} lines but {target} has {len(targets):,}: line n of one "
            "must be the translation of line n of the other. Leave a line empty where a "
            "sentence is missing."
        )
    return ParallelTexts(sources, targets)
