"""Language modeling on your own text files: the first part for training, the rest for validation.

The files are joined in the given order. Training takes random crops; validation predicts every
token once.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer

from datamodules.language_modeling.base import TokenDataModule
from datamodules.loading.files import default_data_dir
from datamodules.text.encoding import encode_long_text, split_into_chunks, token_dtype
from datamodules.text.reading import SplitText, find_files
from datamodules.text.tokenizer_files import find_tokenizer, load_or_build
from datamodules.text.tokenizers import NUM_BYTES, character_tokenizer, gpt2_tokenizer, train_bpe
from engine.errors import UserError

KINDS = ("characters", "bpe", "gpt2")


class TextFile(TokenDataModule):
    """Serve text files as tokens: (inputs, targets), both int64 (B, T).

    Args:
        files: UTF-8 text files or patterns with `*`, `?` and `**`, sorted within each pattern.
        tokenizer: `characters`, `bpe` (byte-level, trained on the training split), `gpt2`, or that
            of another model: its checkpoint, a tokenizer.json or a Hugging Face folder.
        bpe_vocab_size: Maximum vocabulary of `bpe`, at least 256.
        context: T, tokens per row.
        batch_size: B, rows per batch over all processes.
        val_fraction: Fraction of the characters, at the end, for validation.
        seed: Seed of the positions of the crops.
        data_dir: Folder for downloads and memory maps; by default DATA_DIR, else `data`.
        memory_map: Write the tokens to a file in `data_dir` once and map it, for a text larger than
            memory or read by many processes of a machine.
    """

    def __init__(
        self,
        files: list[str] | str,
        tokenizer: str = "characters",
        bpe_vocab_size: int = 1024,
        context: int = 256,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        seed: int = 0,
        data_dir: str | None = None,
        memory_map: bool = False,
    ) -> None:
        super().__init__(context, batch_size, seed)
        if bpe_vocab_size < NUM_BYTES:
            raise UserError(
                "data.bpe_vocab_size must be at least 256, one token per byte, got "
                f"{bpe_vocab_size}."
            )
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, got {val_fraction}.")
        self.files = files
        self.kind = tokenizer
        self.bpe_vocab_size = bpe_vocab_size
        self.val_fraction = val_fraction
        self.data_dir = Path(data_dir or default_data_dir()).expanduser()
        self.memory_map = memory_map
        find_tokenizer(tokenizer, KINDS, self.data_dir)  # fail before the text is read

    def find(self) -> list[Path]:
        """Return the files in the order of their text; subclasses may download them here."""
        return find_files(self.files)

    @cached_property
    def text(self) -> SplitText:
        return SplitText(self.find(), self.val_fraction)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        if not self.memory_map or self.kind not in KINDS:
            return load_or_build(self.kind, KINDS, self._build_tokenizer, self.data_dir)
        path = self._cache / "tokenizer.json"
        _write_once(path, lambda: [self._build_tokenizer(self.kind).to_str().encode()])
        return Tokenizer.from_file(str(path))

    def _build_tokenizer(self, kind: str) -> Tokenizer:
        if kind == "gpt2":
            return gpt2_tokenizer(self.data_dir)
        if kind == "characters":
            return character_tokenizer(self.text.alphabet)
        return train_bpe(split_into_chunks(self.text.read("train")), self.bpe_vocab_size)

    # From files to tokens.

    @cached_property
    def _cache(self) -> Path:
        """Folder of the memory map, named after the files, their times and the tokenizer."""
        files = [
            (str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in self.text.paths
        ]
        kind = self.kind if self.kind in KINDS else self.tokenizer_json
        bpe_vocab_size = self.bpe_vocab_size if kind == "bpe" else None
        origin = json.dumps([files, kind, bpe_vocab_size, self.val_fraction])
        return self.data_dir / "tokens" / hashlib.sha256(origin.encode()).hexdigest()[:16]

    def load(self, split: str) -> np.ndarray:
        dtype = token_dtype(self.tokenizer)
        if not self.memory_map:
            return np.concatenate([np.empty(0, dtype), *self._encode(split)])
        path = self._cache / f"{split}.{np.dtype(dtype).name}"
        _write_once(path, lambda: (tokens.tobytes() for tokens in self._encode(split)))
        if not path.stat().st_size:  # numpy cannot map an empty file
            return np.empty(0, dtype)
        # A view as ndarray: slices of a memmap object take three times as long.
        return np.memmap(path, dtype, mode="r").view(np.ndarray)

    def _encode(self, split: str) -> Iterator[np.ndarray]:
        return encode_long_text(self.tokenizer, self.text.read(split))

    @property
    def remedy(self) -> str:
        return "more text in --data.files, or another --data.val_fraction"

    def prepare_data(self) -> None:
        if self.memory_map:
            for split in ("train", "val"):
                self.load(split)


def _write_once(path: Path, parts: Callable[[], Iterable[bytes]]) -> None:
    """Write a file unless it exists, atomically: several processes may write it at once."""
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
        raise UserError(
            f"The memory map of the tokens cannot be written to {path.parent} ({error}): set "
            "--data.data_dir to a writable folder, or --data.memory_map false."
        ) from error
