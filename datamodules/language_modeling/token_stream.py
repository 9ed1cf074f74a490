"""Remote token shards: downloaded before they are needed and deleted afterwards.

For a corpus larger than the disk. Random crops of all shards would need all of them at once, so the
crops of a step come from a window of a few shards. Every epoch shuffles the shards and moves the
window over them one by one:

    order of the epoch    7  2  5  0  3  6  1  4      window of 3
    early                [7  2  5] 0  3  6  1  4      0 is being downloaded
    a little later        7 [2  5  0] 3  6  1  4      7 is deleted, 3 is being downloaded
    at the end            7] 2  5  0  3  6  1 [4      it wraps around: each shard is used as often

Order, window and crops depend on (seed, step) alone, not on the shards on the disk or the number of
processes. A run therefore resumes bit for bit on a machine with other shards or none.
"""

import hashlib
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from torch.utils.data import DataLoader

from datamodules.language_modeling.token_batches import RandomCrops, TokenSequence, train_loader
from datamodules.language_modeling.token_shards import (
    COMMAND,
    INDEX,
    ConcatenatedShards,
    TokenShards,
    parse_index,
)
from datamodules.loading.files import obtain, open_url
from engine.errors import UserError

ATTEMPTS = 3  # per download
OFFLINE_CONFIG = "configs/source/gpt.yaml"


class ShardCache:
    """Local copies of the remote shards of a split.

    A file is named after its checksum and written atomically, so every file in the folder is valid
    and several processes can share the folder.

    Args:
        url: Remote folder.
        folder: Local folder.
        shards: Entries of the index.
        dtype: Integer type of the tokens.
        keep: Whether to keep shards on the disk after use.
    """

    def __init__(
        self, url: str, folder: Path, shards: list[dict[str, Any]], dtype: np.dtype, keep: bool
    ) -> None:
        self.url = url
        self.folder = folder
        self.shards = shards
        self.dtype = dtype
        self.keep = keep
        self._open: dict[int, np.ndarray] = {}
        pooch.get_logger().setLevel("WARNING")  # otherwise it prints a line per shard

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=4, thread_name_prefix="shards")

    def path(self, number: int) -> Path:
        return self.folder / f"{self.shards[number]['sha256']}.bin"

    def download(self, number: int) -> None:
        shard = self.shards[number]
        obtain(
            self.path(number),
            [f"{self.url}/{shard['file']}"] * ATTEMPTS,
            f"sha256:{shard['sha256']}",
            OFFLINE_CONFIG,
        )

    def open(self, numbers: Iterable[int]) -> list[np.ndarray]:
        """Return the tokens of shards, downloading missing ones in parallel."""
        numbers = list(numbers)
        list(self._threads.map(self._map, dict.fromkeys(set(numbers) - set(self._open))))
        return [self._open[number] for number in numbers]

    def _map(self, number: int) -> None:
        for remaining in reversed(range(ATTEMPTS)):
            self.download(number)
            try:
                tokens = np.memmap(self.path(number), self.dtype, mode="r")
            except FileNotFoundError:  # another process has just deleted it
                if not remaining:
                    raise
            else:
                self._open[number] = tokens.view(np.ndarray)
                return

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Start downloads in the background; `open` reports their errors."""
        for number in set(numbers) - set(self._open):
            self._threads.submit(self._try_download, number)

    def _try_download(self, number: int) -> None:
        with suppress(UserError):
            self.download(number)

    def close_except(self, numbers: Iterable[int]) -> None:
        """Close and delete all other shards; other processes keep what they have mapped."""
        for number in set(self._open) - set(numbers):
            del self._open[number]
            if not self.keep:
                self.path(number).unlink(missing_ok=True)


class WindowCrops(RandomCrops):
    """Random crops from a moving window of shards.

    Args:
        cache: The shards.
        tokens: Number of tokens in all of them.
        vocab_size: Exclusive upper bound of the tokens.
        window: Shards that the crops of a step come from.
        others: Arguments of RandomCrops: context, batch_size, seed, rank, world_size.
    """

    def __init__(
        self, cache: ShardCache, tokens: TokenSequence, vocab_size: int, window: int, **others: int
    ) -> None:
        super().__init__(tokens, **others)
        self.cache = cache
        self.vocab_size = vocab_size
        self.window = min(window, len(cache.shards))
        self._tokens: ConcatenatedShards | None = None
        self._position = (-1, -1)

    def position(self, step: int) -> tuple[int, int]:
        """Return the epoch of a step and the number of its window in the epoch."""
        epoch, step_of_epoch = divmod(step, self.steps)
        return epoch, step_of_epoch * len(self.cache.shards) // self.steps

    def shards_at(self, position: tuple[int, int]) -> list[int]:
        """Return the shards of a window."""
        epoch, first = position
        count = len(self.cache.shards)
        if first >= count:  # after the last window comes the first of the next epoch
            epoch, first = epoch + 1, 0
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(count)
        return order[np.arange(first, first + self.window) % count].tolist()

    def tokens_at(self, step: int) -> ConcatenatedShards:
        position = self.position(step)
        if self._tokens is None or position != self._position:
            numbers = self.shards_at(position)
            self.cache.close_except(numbers)
            tokens = self.cache.open(numbers)
            names = [str(self.cache.path(number)) for number in numbers]
            self._tokens = ConcatenatedShards(tokens, names, self.vocab_size)
            self._position = position
            self.cache.prefetch(self.shards_at((position[0], position[1] + 1)))
        return self._tokens


class LengthOnly:
    """Token sequence whose tokens are not on this machine; only its length is known."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        raise NotImplementedError("the tokens are read window by window")


class TokenStream(TokenShards):
    """Serve remote token shards: (inputs, targets), both int64 (B, T).

    Args:
        url: Folder written by `python -m scripts.tokenize_text`, as `https://…`, `file:///…`, or
            any URL of fsspec with the package that it needs: `s3://…` (s3fs), `gs://…` (gcsfs),
            `hf://datasets/…`.
        context: T, tokens per row.
        batch_size: B, rows per batch over all processes.
        seed: Seed of the order of the shards and of the positions of the crops.
        data_dir: Folder of the data sets; by default DATA_DIR, else `data`. Shards are stored in
            its folder `streams`.
        vocab_multiple: Round vocab_size up to a multiple of this.
        window: Shards that the crops of a step come from. The disk must hold window + 1 of them and
            the validation shards; between two epochs up to twice as many.
        keep: Keep all shards on the disk, so that the second epoch needs no network.
    """

    def __init__(
        self,
        url: str,
        context: int = 1024,
        batch_size: int = 12,
        seed: int = 0,
        data_dir: str | None = None,
        vocab_multiple: int = 1,
        window: int = 8,
        keep: bool = False,
    ) -> None:
        if window < 1:
            raise UserError(f"data.window must be at least 1, got {window}.")
        if "://" not in url:
            raise UserError(
                f"data.url must start with https://, s3://, gs:// or another scheme, got {url!r}; "
                "use datamodules.TokenShards for a local folder."
            )
        self.url = url.rstrip("/")
        name = f"streams/{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"
        super().__init__(name, context, batch_size, seed, data_dir, vocab_multiple)
        self.window = window
        self.keep = keep

    @cached_property
    def index(self) -> dict[str, Any]:
        """The content of index.json, downloaded by every process."""
        url = f"{self.url}/{INDEX}"
        try:
            with open_url(url) as file:
                data = file.read()
        except OSError as error:
            raise UserError(
                f"cannot read {url} ({type(error).__name__}: {error}). Upload a folder of token "
                f"shards there (`{COMMAND}` writes one), set another --data.url, or start with a "
                f"config that needs no network: --config {OFFLINE_CONFIG}"
            ) from error
        return parse_index(data, url)

    def prepare_data(self) -> None:
        """Check that the disk has space for a window before hours are spent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = sorted((shard["tokens"] for shard in self._shards("train")), reverse=True)
        held = sizes if self.keep else sizes[: self.window + 1]
        held += [shard["tokens"] for shard in self._shards("val")]
        needed = sum(held) * self._dtype.itemsize
        present = sum(path.stat().st_size for path in self.folder.glob("*.bin"))
        free = shutil.disk_usage(self.folder).free
        if needed > present + free:
            raise UserError(
                f"The disk of {self.folder} has {free / 1e9:.1f} GB free, but a window of "
                f"{self.window} shards takes {needed / 1e9:.1f} GB: use a smaller --data.window, "
                "smaller shards, or another --data.data_dir."
            )

    def _cache(self, split: str, keep: bool) -> ShardCache:
        return ShardCache(self.url, self.folder, self._shards(split), self._dtype, keep)

    def load(self, split: str) -> TokenSequence:
        if split == "train":
            return LengthOnly(sum(shard["tokens"] for shard in self._shards(split)))
        cache = self._cache(split, keep=True)
        numbers = range(len(cache.shards))
        names = [str(cache.path(number)) for number in numbers]
        return ConcatenatedShards(cache.open(numbers), names, self.index["vocab_size"])

    def train_dataloader(self) -> DataLoader:
        crops = WindowCrops(
            self._cache("train", self.keep),
            self.train_tokens,
            self.index["vocab_size"],
            self.window,
            context=self.context,
            batch_size=self.batch_size,
            seed=self.seed,
            **self._rank_and_size,
        )
        return train_loader(crops, crops.seed, crops.rank)
