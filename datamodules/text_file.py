"""Text files of one's own, cut into tokens, for a language model to continue.

The files are joined as they are, in the order named. The first part of the text trains, in random
crops; the last validates, every token of it once.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from lightning import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer
from torch.utils.data import DataLoader

from datamodules import tokenization
from datamodules.files import default_data_dir
from datamodules.text_reading import matching_files, read_text, survey
from datamodules.token_batches import AllWindows, RandomCrops, train_loader, val_loader
from datamodules.whole_batches import share_of_batch


class TextFile(LightningDataModule):
    """Text files as tokens, in batches of (inputs, targets), both int64 of shape (B, T).

    Args:
        files: Text files in UTF-8; `*`, `?` and `**` stand for many, which are then sorted.
        tokenizer: `characters`, `bpe` (byte pairs learnt from the training part) or `gpt2`.
        bpe_vocab_size: The most tokens that `bpe` may have, at least 256.
        context: T, the tokens that the net sees at once.
        batch_size: B, the rows of a step on all devices together.
        val_fraction: The share of the characters, taken from the end, that validates.
        seed: Decides where the crops lie.
        data_dir: The folder for downloads and memory maps; DATA_DIR or `data` unless given.
        memory_map: Keep the tokens in a file below `data_dir` instead of in memory, made once: for
            a text that is larger than memory, or that many processes of one machine read.
    """

    def __init__(
        self,
        files: list[str],
        tokenizer: Literal["characters", "bpe", "gpt2"] = "characters",
        bpe_vocab_size: int = 1024,
        context: int = 256,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        seed: int = 0,
        data_dir: str | None = None,
        memory_map: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(tokenizer, bpe_vocab_size, context, batch_size, val_fraction, seed)
        self.files = files
        self.kind = tokenizer
        self.bpe_vocab_size = bpe_vocab_size
        self.context = context
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.seed = seed
        self.data_dir = Path(data_dir or default_data_dir())
        self.memory_map = memory_map

    # What the net and the task want to know before training, got when first asked for.

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as `tokenizers.Tokenizer.from_str` reads it."""
        return self.tokenizer.to_str()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        if not self.memory_map:
            return self._make_tokenizer()
        path = self._cache / "tokenizer.json"
        with _locked(path):
            if not path.exists():
                _replace(path, [self._make_tokenizer().to_str().encode()])
        return Tokenizer.from_file(str(path))

    def _make_tokenizer(self) -> Tokenizer:
        if self.kind == "gpt2":
            return tokenization.gpt2(self.data_dir)
        if self.kind == "characters":
            return tokenization.characters(self._survey[1])
        return tokenization.byte_pairs(
            read_text(self._paths, stop=self._split), self.bpe_vocab_size
        )

    # From files to tokens.

    def find(self) -> list[Path]:
        """The files in the order of their text. A data set of its own obtains them here."""
        return [path for pattern in self.files for path in matching_files(pattern)]

    @cached_property
    def _paths(self) -> list[Path]:
        return self.find()

    @cached_property
    def _survey(self) -> tuple[int, str]:
        return survey(self._paths)

    @property
    def _split(self) -> int:
        """The number of characters that train."""
        return int(self._survey[0] * (1 - self.val_fraction))

    @cached_property
    def _cache(self) -> Path:
        """The folder of this text's memory map. A file changed since then has another folder."""
        stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in self._paths]
        bpe_vocab_size = self.bpe_vocab_size if self.kind == "bpe" else None
        made_from = json.dumps([stamps, self.kind, bpe_vocab_size, self.val_fraction])
        return self.data_dir / "tokens" / hashlib.sha256(made_from.encode()).hexdigest()[:16]

    def _tokens(self, name: str) -> np.ndarray:
        dtype = tokenization.token_dtype(self.tokenizer)
        if not self.memory_map:
            return np.concatenate([np.empty(0, dtype), *self._encoded(name)])
        path = self._cache / f"{name}.{np.dtype(dtype).name}"
        with _locked(path):
            if not path.exists():
                _replace(path, (tokens.tobytes() for tokens in self._encoded(name)))
        # numpy cannot map an empty file
        return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)

    def _encoded(self, name: str) -> Iterator[np.ndarray]:
        part = (0, self._split) if name == "train" else (self._split, None)
        return tokenization.encode_corpus(self.tokenizer, read_text(self._paths, *part))

    def prepare_data(self) -> None:
        if self.memory_map:
            for name in ("train", "val"):
                self._tokens(name)

    def setup(self, stage: str) -> None:
        share_of_batch(self.batch_size, self.trainer.world_size if self.trainer else 1)
        if not hasattr(self, "train_tokens"):
            train_tokens, val_tokens = self._tokens("train"), self._tokens("val")
            self._check_length(len(train_tokens), len(val_tokens))
            self.train_tokens, self.val_tokens = train_tokens, val_tokens

    def _check_length(self, train: int, val: int) -> None:
        if min(train, val) <= self.context:
            raise MisconfigurationException(
                f"The text is too short: it has {train} tokens to train and {val} to validate, and "
                f"a context of {self.context} needs {self.context + 1} of each. Give more text in "
                "--data.files, a smaller --data.context, or another --data.val_fraction."
            )

    # From tokens to batches.

    def _share(self) -> dict[str, int]:
        trainer = self.trainer
        return {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}

    def train_dataloader(self) -> DataLoader:
        crops = RandomCrops(
            self.train_tokens, self.context, self.batch_size, self.seed, **self._share()
        )
        return train_loader(crops)

    def val_dataloader(self) -> DataLoader:
        windows = AllWindows(self.val_tokens, self.context, self.batch_size, **self._share())
        return val_loader(windows)


# Writing memory maps: several processes may want the same one at once.


def _locked(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisconfigurationException(
            f"The tokens' memory map cannot be kept in {path.parent} ({error}): name a folder "
            "that can be written to by --data.data_dir, or set --data.memory_map false."
        ) from error
    return FileLock(f"{path}.lock")


def _replace(path: Path, parts: Iterable[bytes]) -> None:
    """Writes a file that is there either whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        for part in parts:
            file.write(part)
    os.replace(partial, path)


def _check_arguments(
    tokenizer: str,
    bpe_vocab_size: int,
    context: int,
    batch_size: int,
    val_fraction: float,
    seed: int,
) -> None:
    complaints = {
        f"tokenizer is {tokenizer!r}: choose characters, bpe or gpt2.": (
            tokenizer not in ("characters", "bpe", "gpt2")
        ),
        f"bpe_vocab_size is {bpe_vocab_size}: it must be 256 or more, one for each byte.": (
            bpe_vocab_size < tokenization.NUM_BYTES
        ),
        f"context is {context}: a net must see 1 token or more.": context < 1,
        f"batch_size is {batch_size}: a step needs 1 row or more.": batch_size < 1,
        f"val_fraction is {val_fraction}: it must lie between 0 and 1, for example 0.1.": (
            not 0 < val_fraction < 1
        ),
        f"seed is {seed}: it must be 0 or more.": seed < 0,
    }
    for complaint, justified in complaints.items():
        if justified:
            raise MisconfigurationException(complaint)
