"""Token shards: tokens prepared once, in files that are memory-mapped and may exceed memory.

    index.json        description of the shards; written last, so a folder with an index is complete
    train-00000.bin   little-endian unsigned integers of 2 or 4 bytes
    train-00001.bin   continues the previous shard, possibly in the middle of a word
    val-00000.bin     validation tokens

`python -m scripts.tokenize_text` writes such a folder. The shards of a split form one token
sequence, and a crop may span two of them: batches depend on (seed, step) alone, not on the sizes of
the shards.
"""

import errno
import hashlib
import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from datamodules.language_modeling.base import TokenDataModule
from datamodules.language_modeling.token_batches import TokenSequence
from datamodules.loading.files import default_data_dir, verify
from datamodules.text.encoding import token_dtype
from engine.errors import UserError

INDEX = "index.json"
VERSION = 1
DTYPES: dict[str, np.dtype] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
COMMAND = "python -m scripts.tokenize_text"
REMEDY = f"Copy the shard again from its source, or create the folder again with {COMMAND}."


class ConcatenatedShards:
    """The shards of a split as one token sequence.

    Args:
        shards: Tokens of each shard.
        names: Name of each shard in error messages.
        vocab_size: Exclusive upper bound of the tokens.
    """

    def __init__(self, shards: Sequence[np.ndarray], names: Sequence[str], vocab_size: int) -> None:
        self.shards = shards
        self.names = names
        self.vocab_size = vocab_size
        self.starts = [0, *accumulate(map(len, shards))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(len(self))
        number = bisect_right(self.starts, start) - 1
        pieces = []
        while start < stop:
            end = min(stop, self.starts[number + 1])
            offset = self.starts[number]
            piece = self.shards[number][start - offset : end - offset]
            if len(piece) and piece.max() >= self.vocab_size:  # otherwise an IndexError in the net
                raise UserError(
                    f"{self.names[number]} contains the token {piece.max()}, but the vocabulary of "
                    f"{INDEX} has {self.vocab_size}: the files do not belong together. Create the "
                    f"folder again with {COMMAND}."
                )
            pieces.append(piece)
            start, number = end, number + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint16), *pieces])


class TokenShards(TokenDataModule):
    """Serve a folder of token shards: (inputs, targets), both int64 (B, T).

    The tokenizer was chosen when the shards were written (`--tokenizer` of scripts.tokenize_text).

    Args:
        folder: Folder of `index.json`, relative to `data_dir`.
        context: T, tokens per row.
        batch_size: B, rows per batch over all processes.
        seed: Seed of the positions of the crops.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`.
        vocab_multiple: Round vocab_size up to a multiple of this, such as GPT-2's 50,257 to 50,304
            for 64: GPUs multiply such matrices faster. The additional tokens never occur.
        verify: Compare the sha256 of every shard before training, which reads all of them. File
            sizes are always compared.
    """

    def __init__(
        self,
        folder: str,
        context: int = 1024,
        batch_size: int = 12,
        seed: int = 0,
        data_dir: str | None = None,
        vocab_multiple: int = 1,
        verify: bool = False,
    ) -> None:
        super().__init__(context, batch_size, seed)
        if vocab_multiple < 1:
            raise UserError(f"data.vocab_multiple must be at least 1, got {vocab_multiple}.")
        base = Path(data_dir or default_data_dir()).expanduser()
        self.folder = base / Path(folder).expanduser()
        self.vocab_multiple = vocab_multiple
        self.verify = verify

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of index.json."""
        return read_index(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.index["tokenizer"])

    @property
    def vocab_size(self) -> int:
        return -(-self.index["vocab_size"] // self.vocab_multiple) * self.vocab_multiple

    @property
    def remedy(self) -> str:
        return f"create {self.folder} again from more text or with another --val_fraction"

    @property
    def fingerprint(self) -> str:
        shards = [shard.get("sha256", shard["tokens"]) for shard in self.index["shards"]]
        return hashlib.sha256(json.dumps(shards).encode()).hexdigest()

    def prepare_data(self) -> None:
        if self.verify:
            for shard in self.index["shards"]:
                path = self.folder / shard["file"]
                self._check_size(path, shard["tokens"])
                verify(path, f"sha256:{shard['sha256']}", REMEDY)

    def load(self, split: str) -> TokenSequence:
        shards = self._shards(split)
        paths = [self.folder / shard["file"] for shard in shards]
        for path, shard in zip(paths, shards, strict=True):
            self._check_size(path, shard["tokens"])
        # Views as ndarray: slices of a memmap object take three times as long.
        tokens = [np.memmap(path, self._dtype, mode="r").view(np.ndarray) for path in paths]
        return ConcatenatedShards(tokens, list(map(str, paths)), self.index["vocab_size"])

    def _shards(self, split: str) -> list[dict[str, Any]]:
        return [shard for shard in self.index["shards"] if shard["split"] == split]

    @property
    def _dtype(self) -> np.dtype:
        return DTYPES[self.index["dtype"]]

    def _check_size(self, path: Path, tokens: int) -> None:
        expected = tokens * self._dtype.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            has = "is missing" if found is None else f"has {found:,} bytes"
            raise UserError(
                f"{path} {has}, but {INDEX} expects {expected:,} bytes ({tokens:,} tokens). "
                f"{REMEDY}"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of a folder.

    Raises:
        UserError: If there is none, or this version cannot read it.
    """
    path = folder / INDEX
    if not path.is_file():
        what = f"has no {INDEX} and is incomplete" if folder.is_dir() else "does not exist"
        raise UserError(
            f"{folder} {what}: create token shards first, for example with "
            f"`{COMMAND} 'texts/*.txt' --output {folder}`, or set another --data.folder."
        )
    return parse_index(path.read_bytes(), str(path))


def parse_index(data: bytes, path: str) -> dict[str, Any]:
    """Parse and check the content of an index.

    Raises:
        UserError: If this version cannot read it.
    """
    again = f"create the folder again with {COMMAND}"
    try:
        index: dict[str, Any] = json.loads(data)
        version = index["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or not an index of token shards ({type(error).__name__}: {error}): "
            f"{again}."
        ) from error
    if version != VERSION:
        raise UserError(
            f"{path} has version {version!r}, but only version {VERSION} is supported: {again}."
        )
    missing = {"dtype", "vocab_size", "end_of_text", "tokenizer", "shards", "sources"} - set(index)
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}: {again}.")
    if index["dtype"] not in DTYPES:
        raise UserError(f"{path}: dtype must be uint16 or uint32: {again}.")
    for number, shard in enumerate(index["shards"]):
        if missing := {"file", "split", "tokens"} - set(shard):
            raise UserError(f"{path}: shard {number} lacks {', '.join(sorted(missing))}: {again}.")
    return index


# Writing.


class ShardWriter:
    """Write the tokens of a split in shards of equal size, each of them atomically.

    Args:
        folder: Folder of the shards.
        split: `train` or `val`.
        dtype: Integer type of the tokens.
        shard_tokens: Tokens per shard; the last one may have fewer.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, shard_tokens: int) -> None:
        self.folder = folder
        self.split = split
        self.dtype = dtype
        self.shard_tokens = shard_tokens
        self.shards: list[dict[str, Any]] = []  # entries of the index for complete shards
        self._remaining = 0  # tokens until the current shard is full
        self._name = ""

    def write(self, tokens: np.ndarray) -> None:
        while len(tokens):
            if not self._remaining:
                self._open()
            part, tokens = tokens[: self._remaining], tokens[self._remaining :]
            data = part.astype(self.dtype, copy=False).tobytes()
            try:
                self._file.write(data)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise UserError(
                    f"No space left on the disk of {self.folder}: delete that folder and choose "
                    "another --output."
                ) from error
            self._hash.update(data)
            self._remaining -= len(part)
            if not self._remaining:
                self._finish()

    def _open(self) -> None:
        self._name = f"{self.split}-{len(self.shards):05}.bin"
        self._file = (self.folder / f"{self._name}.partial").open("wb")
        self._hash = hashlib.sha256()
        self._remaining = self.shard_tokens

    def _finish(self) -> None:
        self._file.close()
        (self.folder / f"{self._name}.partial").replace(self.folder / self._name)
        self.shards.append(
            {
                "file": self._name,
                "split": self.split,
                "tokens": self.shard_tokens - self._remaining,
                "sha256": self._hash.hexdigest(),
            }
        )
        self._remaining = 0

    def close(self) -> None:
        """Finish the last shard."""
        if self._remaining:
            self._finish()


def write_index(
    folder: Path,
    tokenizer: Tokenizer,
    end_of_text: int,
    shards: Sequence[dict[str, Any]],
    sources: Sequence[dict[str, Any]],
) -> None:
    """Write the index, which marks a folder as complete.

    Args:
        folder: Folder of the shards.
        tokenizer: Tokenizer of the tokens.
        end_of_text: Token that follows each document.
        shards: For each, its file, split (`train` or `val`), tokens and sha256.
        sources: For each, its name and number of documents.
    """
    index = {
        "version": VERSION,
        "dtype": np.dtype(token_dtype(tokenizer)).name,
        "vocab_size": tokenizer.get_vocab_size(),
        "end_of_text": end_of_text,
        "shards": list(shards),
        "sources": list(sources),
        "tokenizer": tokenizer.to_str(),
    }
    partial = folder / f"{INDEX}.partial"
    partial.write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(folder / INDEX)
