"""Text files of one's own, cut into tokens, for a language model to continue.

The files are joined as they are, in the order named. The first part of the text trains, in random
crops; the last validates, every token of it once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer

from datamodules.language_modeling.base import TokenDataModule, refuse
from datamodules.loading.files import default_data_dir
from datamodules.text import tokenization
from datamodules.text.reading import matching_files, read_text, survey


class TextFile(TokenDataModule):
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
        super().__init__(context, batch_size, seed)
        refuse(
            {
                f"tokenizer is {tokenizer!r}: choose characters, bpe or gpt2.": (
                    tokenizer not in ("characters", "bpe", "gpt2")
                ),
                f"bpe_vocab_size is {bpe_vocab_size}: it must be 256 or more, one for each byte.": (
                    bpe_vocab_size < tokenization.NUM_BYTES
                ),
                f"val_fraction is {val_fraction}: it must lie between 0 and 1, for example 0.1.": (
                    not 0 < val_fraction < 1
                ),
            }
        )
        self.files = files
        self.kind = tokenizer
        self.bpe_vocab_size = bpe_vocab_size
        self.val_fraction = val_fraction
        self.data_dir = Path(data_dir or default_data_dir())
        self.memory_map = memory_map

    @cached_property
    def tokenizer(self) -> Tokenizer:
        if not self.memory_map:
            return self._make_tokenizer()
        path = self._cache / "tokenizer.json"
        _make(path, lambda: [self._make_tokenizer().to_str().encode()])
        return Tokenizer.from_file(str(path))

    def _make_tokenizer(self) -> Tokenizer:
        if self.kind == "gpt2":
            return tokenization.gpt2(self.data_dir)
        if self.kind == "characters":
            return tokenization.characters(self._survey[1])
        text = tokenization.in_chunks(read_text(self._paths, stop=self._split))
        return tokenization.byte_pairs(text, self.bpe_vocab_size)

    # From files to tokens.

    def find(self) -> list[Path]:
        """The files in the order of their text. A data set of its own obtains them here."""
        found = (path for pattern in self.files for path in matching_files(pattern))
        return list(dict.fromkeys(found))  # two patterns may name the same

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

    def load(self, split: str) -> np.ndarray:
        dtype = tokenization.token_dtype(self.tokenizer)
        if not self.memory_map:
            return np.concatenate([np.empty(0, dtype), *self._encoded(split)])
        path = self._cache / f"{split}.{np.dtype(dtype).name}"
        _make(path, lambda: (tokens.tobytes() for tokens in self._encoded(split)))
        # numpy cannot map an empty file
        if not path.stat().st_size:
            return np.empty(0, dtype)
        # A plain array: slices of a memmap object take three times as long.
        return np.memmap(path, dtype, mode="r").view(np.ndarray)

    def _encoded(self, split: str) -> Iterator[np.ndarray]:
        part = (0, self._split) if split == "train" else (self._split, None)
        return tokenization.encode_corpus(self.tokenizer, read_text(self._paths, *part))

    @property
    def remedy(self) -> str:
        return "more text in --data.files, or another --data.val_fraction"

    def prepare_data(self) -> None:
        if self.memory_map:
            for split in ("train", "val"):
                self.load(split)


# Writing memory maps: several processes may want the same one at once.


def _make(path: Path, parts: Callable[[], Iterable[bytes]]) -> None:
    """Writes a file unless it is there; it is there either whole or not at all."""
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                partial = path.with_name(f"{path.name}.partial")
                with partial.open("wb") as file:
                    for part in parts():
                        file.write(part)
                os.replace(partial, path)
    except OSError as error:
        raise MisconfigurationException(
            f"The tokens' memory map cannot be kept in {path.parent} ({error}): name a folder "
            "that can be written to by --data.data_dir, or set --data.memory_map false."
        ) from error
