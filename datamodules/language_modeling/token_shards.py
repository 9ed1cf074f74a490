"""Token shards: tokens in files of a folder, made once, mapped from disk, larger than memory.

    index.json        what the shards are; written last, so a folder with an index is whole
    train-00000.bin   tokens, unsigned integers of 2 or 4 bytes, the lowest byte first
    train-00001.bin   goes on where the one before ends, in the middle of a word if need be
    val-00000.bin     tokens that validate

`python -m scripts.tokenize_text` makes such a folder. All shards of a split are one long row of
tokens: a crop that reaches the end of a shard reads on in the next. So the batches of a step depend
on seed and step alone, and are the same however the row was cut.
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tokenizers import Tokenizer

from datamodules.language_modeling.base import TokenDataModule, refuse
from datamodules.language_modeling.token_batches import Tokens
from datamodules.loading.files import default_data_dir, verify
from datamodules.text.tokenization import token_dtype

INDEX = "index.json"
VERSION = 1
DTYPES: dict[str, np.dtype] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
MAKE = "python -m scripts.tokenize_text"
REMEDY = f"Copy the shard anew from where it was made, or make the folder anew: {MAKE} …"


class JoinedShards:
    """The shards of a split as one row of tokens.

    Args:
        shards: The tokens of each shard.
        names: What to call each in an error.
        vocab_size: Every token must be below it.
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
            if len(piece) and piece.max() >= self.vocab_size:  # else an index error inside the net
                raise MisconfigurationException(
                    f"{self.names[number]} holds the token {piece.max()}, but there are only "
                    f"{self.vocab_size}: shards and {INDEX} do not belong together. Make the "
                    f"folder anew: {MAKE} …"
                )
            pieces.append(piece)
            start, number = end, number + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint16), *pieces])


class TokenShards(TokenDataModule):
    """A folder of token shards, in batches of (inputs, targets), both int64 of shape (B, T).

    Args:
        folder: Where `index.json` lies, from `data_dir` on.
        context: T, the tokens that the net sees at once.
        batch_size: B, the rows of a step on all devices together.
        seed: Decides where the crops lie.
        data_dir: The folder for data; DATA_DIR or `data` unless given.
        vocab_multiple: Round vocab_size up to a multiple of this. GPUs multiply matrices of 64 · n
            columns faster; the tokens added, GPT-2's 50,257 to 50,304, never occur.
        verify: Compare every shard with its sha256 before training: reads all of it. The sizes of
            the files are compared always.
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
        refuse(
            {f"vocab_multiple is {vocab_multiple}: it must be 1 or more.": vocab_multiple < 1},
        )
        self.folder = Path(data_dir or default_data_dir()) / folder
        self.vocab_multiple = vocab_multiple
        self.verify = verify

    @cached_property
    def index(self) -> dict[str, Any]:
        """What index.json says."""
        return read_index(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.index["tokenizer"])

    @property
    def vocab_size(self) -> int:
        return -(-self.index["vocab_size"] // self.vocab_multiple) * self.vocab_multiple

    @property
    def remedy(self) -> str:
        return f"make {self.folder} anew from more text, with another part of it to validate"

    def prepare_data(self) -> None:
        if self.verify:
            for shard in self.index["shards"]:
                path = self.folder / shard["file"]
                self._check_size(path, shard["tokens"])
                verify(path, f"sha256:{shard['sha256']}", REMEDY)

    def load(self, split: str) -> Tokens:
        shards = [shard for shard in self.index["shards"] if shard["split"] == split]
        paths = [self.folder / shard["file"] for shard in shards]
        for path, shard in zip(paths, shards, strict=True):
            self._check_size(path, shard["tokens"])
        # Views as plain arrays: slices of a memmap object take three times as long.
        tokens = [np.memmap(path, self._dtype, mode="r").view(np.ndarray) for path in paths]
        return JoinedShards(tokens, list(map(str, paths)), self.index["vocab_size"])

    @property
    def _dtype(self) -> np.dtype:
        return DTYPES[self.index["dtype"]]

    def _check_size(self, path: Path, tokens: int) -> None:
        expected = tokens * self._dtype.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            has = "is missing" if found is None else f"has {found:,} bytes"
            raise MisconfigurationException(
                f"{path} {has}, but {INDEX} says {expected:,} bytes ({tokens:,} tokens). {REMEDY}"
            )


def read_index(folder: Path) -> dict[str, Any]:
    """What the index of a folder says.

    Raises:
        MisconfigurationException: If there is none, or not one that this version understands.
    """
    path = folder / INDEX
    if not path.is_file():
        what = f"has no {INDEX}, so it is not finished" if folder.is_dir() else "does not exist"
        raise MisconfigurationException(
            f"{folder} {what}: make token shards first, for example by "
            f"`{MAKE} 'texts/*.txt' --output {folder}`, or name another --data.folder."
        )
    return parse_index(path.read_bytes(), str(path))


def parse_index(data: bytes, path: str) -> dict[str, Any]:
    """What an index says that was read from somewhere.

    Raises:
        MisconfigurationException: If it is not one that this version understands.
    """
    try:
        index = json.loads(data)
        version = index["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise MisconfigurationException(
            f"{path} is damaged or no index of token shards ({type(error).__name__}: {error}). "
            f"Make the folder anew: {MAKE} …"
        ) from error
    if version != VERSION:
        raise MisconfigurationException(
            f"{path} is of version {version!r}, and this program reads version {VERSION}: make the "
            f"folder anew with its own {MAKE} …"
        )
    missing = {"dtype", "vocab_size", "end_of_text", "tokenizer", "shards", "sources"} - set(index)
    if missing or index["dtype"] not in DTYPES:
        wrong = ", ".join(sorted(missing)) or "a dtype that is uint16 or uint32"
        raise MisconfigurationException(f"{path} lacks {wrong}: make the folder anew: {MAKE} …")
    for number, shard in enumerate(index["shards"]):
        if lost := {"file", "split", "tokens"} - set(shard):
            raise MisconfigurationException(
                f"{path}: shard {number} lacks {', '.join(sorted(lost))}: make the folder anew: "
                f"{MAKE} …"
            )
    found: dict[str, Any] = index
    return found


# Writing.


class ShardWriter:
    """Cuts the tokens of one split into shards of equal size; each appears when it is whole.

    Args:
        folder: Where the shards go.
        split: `train` or `val`.
        dtype: Of the tokens.
        shard_tokens: Tokens of every shard but the last.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, shard_tokens: int) -> None:
        self.folder = folder
        self.split = split
        self.dtype = dtype
        self.shard_tokens = shard_tokens
        self.shards: list[dict[str, Any]] = []  # those that are whole, as the index names them
        self._room = 0
        self._name = ""

    def write(self, tokens: np.ndarray) -> None:
        while len(tokens):
            if not self._room:
                self._begin()
            part, tokens = tokens[: self._room], tokens[self._room :]
            data = part.astype(self.dtype, copy=False).tobytes()
            try:
                self._file.write(data)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise MisconfigurationException(
                    f"The disk of {self.folder} is full: name another --output, and delete this."
                ) from error
            self._hash.update(data)
            self._room -= len(part)
            if not self._room:
                self._end()

    def _begin(self) -> None:
        self._name = f"{self.split}-{len(self.shards):05}.bin"
        self._file = (self.folder / f"{self._name}.partial").open("wb")
        self._hash = hashlib.sha256()
        self._room = self.shard_tokens

    def _end(self) -> None:
        self._file.close()
        (self.folder / f"{self._name}.partial").replace(self.folder / self._name)
        self.shards.append(
            {
                "file": self._name,
                "split": self.split,
                "tokens": self.shard_tokens - self._room,
                "sha256": self._hash.hexdigest(),
            }
        )
        self._room = 0

    def close(self) -> None:
        """The last shard may be shorter than the others."""
        if self._room:
            self._end()


def write_index(
    folder: Path,
    tokenizer: Tokenizer,
    end_of_text: int,
    shards: Sequence[dict[str, Any]],
    sources: Sequence[dict[str, Any]],
) -> None:
    """Declares a folder to be whole.

    Args:
        folder: Where the shards are.
        tokenizer: What made the tokens.
        end_of_text: The token that follows each document.
        shards: Of each: file, split (`train` or `val`), tokens, sha256.
        sources: Of each: its name and how many documents it gave.
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
