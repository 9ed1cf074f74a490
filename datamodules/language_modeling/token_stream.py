"""Token shards that lie elsewhere: fetched when their turn comes, dropped when it is over.

For a corpus larger than the disk. Random crops of all of it would need all of it at once, so the
crops of a step are taken from a window of a few shards. In every epoch the shards come in another
order, and the window moves over them one by one:

    order of the epoch    7  2  5  0  3  6  1  4      window of 3
    early                [7  2  5] 0  3  6  1  4      0 is on its way
    a little later        7 [2  5  0] 3  6  1  4      7 is dropped, 3 is on its way
    at the end            7] 2  5  0  3  6  1 [4      2 closes the circle: each is seen as often

Order, window and crops depend on seed and step alone: neither on what lies on the disk, nor on the
number of processes. So a run goes on bit for bit, on a machine that holds other shards or none.
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
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from datamodules.language_modeling.base import refuse
from datamodules.language_modeling.token_batches import RandomCrops, Tokens, train_loader
from datamodules.language_modeling.token_shards import (
    INDEX,
    MAKE,
    JoinedShards,
    TokenShards,
    parse_index,
)
from datamodules.loading.files import default_data_dir, obtain, open_url

TRIES = 3  # of a download
NO_STREAM = "configs/source/gpt.yaml"


class FetchedShards:
    """The shards of a split, on this machine as long as they are wanted.

    A file is named by its checksum and appears when it is whole, so what lies in the folder is
    right whoever put it there. Several processes share the folder.

    Args:
        url: The folder elsewhere.
        folder: Where they go.
        shards: As the index names them.
        dtype: Of the tokens.
        keep: Whether a shard stays on the disk when its turn is over.
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

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=4, thread_name_prefix="shards")

    def path(self, number: int) -> Path:
        return self.folder / f"{self.shards[number]['sha256']}.bin"

    def fetch(self, number: int) -> None:
        shard = self.shards[number]
        obtain(
            self.path(number),
            [f"{self.url}/{shard['file']}"] * TRIES,
            f"sha256:{shard['sha256']}",
            NO_STREAM,
        )

    def open(self, numbers: Iterable[int]) -> list[np.ndarray]:
        """The tokens of these shards, which are fetched side by side if they are not here."""
        numbers = list(numbers)
        list(self._threads.map(self._map, dict.fromkeys(set(numbers) - set(self._open))))
        return [self._open[number] for number in numbers]

    def _map(self, number: int) -> None:
        for left in reversed(range(TRIES)):
            self.fetch(number)
            try:
                mapped = np.memmap(self.path(number), self.dtype, mode="r")
            except FileNotFoundError:  # another process had just dropped it
                if not left:
                    raise
            else:
                self._open[number] = mapped.view(np.ndarray)
                return

    def prepare(self, numbers: Iterable[int]) -> None:
        """Begin to fetch what will be wanted next. An error is met when it is wanted."""
        for number in set(numbers) - set(self._open):
            self._threads.submit(self._try_to_fetch, number)

    def _try_to_fetch(self, number: int) -> None:
        with suppress(MisconfigurationException):
            self.fetch(number)

    def drop_others(self, numbers: Iterable[int]) -> None:
        """Forget all shards but these. A process that still reads one keeps what it has mapped."""
        for number in set(self._open) - set(numbers):
            del self._open[number]
            if not self.keep:
                self.path(number).unlink(missing_ok=True)


class WindowCrops(RandomCrops):
    """Random crops of a few shards at a time.

    Args:
        fetched: The shards.
        tokens: How many all of them hold.
        vocab_size: Every token must be below it.
        window: Shards from which the crops of a step are taken.
        others: Of RandomCrops: context, batch_size, seed, rank, world_size.
    """

    def __init__(
        self, fetched: FetchedShards, tokens: Tokens, vocab_size: int, window: int, **others: int
    ) -> None:
        super().__init__(tokens, **others)
        self.fetched = fetched
        self.vocab_size = vocab_size
        self.window = min(window, len(fetched.shards))
        self._row: JoinedShards | None = None
        self._place = (-1, -1)

    def place(self, step: int) -> tuple[int, int]:
        """Epoch and number of the window in it."""
        epoch, position = divmod(step, self.steps)
        return epoch, position * len(self.fetched.shards) // self.steps

    def shards_at(self, place: tuple[int, int]) -> list[int]:
        """The shards of a window."""
        epoch, first = place
        count = len(self.fetched.shards)
        if first >= count:  # one after the last: the first of the next epoch
            epoch, first = epoch + 1, 0
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(count)
        return order[np.arange(first, first + self.window) % count].tolist()

    def row(self, step: int) -> JoinedShards:
        place = self.place(step)
        if self._row is None or place != self._place:
            numbers = self.shards_at(place)
            self.fetched.drop_others(numbers)
            tokens = self.fetched.open(numbers)
            names = [str(self.fetched.path(number)) for number in numbers]
            self._row, self._place = JoinedShards(tokens, names, self.vocab_size), place
            self.fetched.prepare(self.shards_at((place[0], place[1] + 1)))
        return self._row


class Length:
    """Stands for tokens that are not here: it is known how many they are."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        raise NotImplementedError("these tokens are read window by window")


class TokenStream(TokenShards):
    """Token shards that lie elsewhere, in batches of (inputs, targets), both int64 of shape (B, T).

    Args:
        url: The folder that `python -m scripts.tokenize_text` made, where it was put: `https://…`,
            `file:///…`, or what fsspec opens, each by a package of its own: `s3://…` (s3fs),
            `gs://…` (gcsfs), `hf://datasets/…`.
        context: T, the tokens that the net sees at once.
        batch_size: B, the rows of a step on all devices together.
        seed: Decides the order of the shards and where the crops lie.
        data_dir: The folder for data; DATA_DIR or `data` unless given. Shards go to `streams`.
        vocab_multiple: Round vocab_size up to a multiple of this.
        window: Shards from which the crops of a step are taken. One more is on its way: the disk
            must hold window + 1 of them, and those that validate. At the turn of an epoch up to
            twice as many.
        keep: Keep all shards that were fetched, for a disk that holds them: the second epoch then
            needs no network.
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
        refuse(
            {
                f"window is {window}: it must be 1 shard or more.": window < 1,
                f"url is {url!r}: it must begin with https://, s3://, gs:// or another protocol; "
                "a folder of this machine is for datamodules.TokenShards.": "://" not in url,
            }
        )
        self.url = url.rstrip("/")
        name = f"streams/{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"
        data_dir = str(Path(data_dir or default_data_dir()))
        super().__init__(name, context, batch_size, seed, data_dir, vocab_multiple)
        self.window = window
        self.keep = keep

    @cached_property
    def index(self) -> dict[str, Any]:
        """What index.json says, read anew in every process."""
        where = f"{self.url}/{INDEX}"
        try:
            with open_url(where) as file:
                data = file.read()
        except OSError as error:
            raise MisconfigurationException(
                f"{where} could not be read ({type(error).__name__}: {error}). Put a folder of "
                f"token shards there, `{MAKE}` makes one; or name another --data.url, or start "
                f"with a config that needs no network: --config {NO_STREAM}"
            ) from error
        return parse_index(data, where)

    def prepare_data(self) -> None:
        """Room for what one window takes is made sure of before hours are spent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sizes = sorted((shard["tokens"] for shard in self._of("train")), reverse=True)
        held = sizes if self.keep else sizes[: self.window + 1]
        held += [shard["tokens"] for shard in self._of("val")]
        wanted = sum(held) * self._dtype.itemsize
        here = sum(path.stat().st_size for path in self.folder.glob("*.bin"))
        free = shutil.disk_usage(self.folder).free
        if wanted > here + free:
            raise MisconfigurationException(
                f"The disk of {self.folder} has {free / 1e9:.1f} GB free, and a window of "
                f"{self.window} shards takes {wanted / 1e9:.1f} GB: give a smaller --data.window, "
                "smaller shards, or another --data.data_dir."
            )

    def _of(self, split: str) -> list[dict[str, Any]]:
        return [shard for shard in self.index["shards"] if shard["split"] == split]

    def _fetched(self, split: str, keep: bool) -> FetchedShards:
        return FetchedShards(self.url, self.folder, self._of(split), self._dtype, keep)

    def load(self, split: str) -> Tokens:
        if split == "train":
            return Length(sum(shard["tokens"] for shard in self._of(split)))
        fetched = self._fetched(split, keep=True)
        numbers = range(len(fetched.shards))
        names = [str(fetched.path(number)) for number in numbers]
        return JoinedShards(fetched.open(numbers), names, self.index["vocab_size"])

    def train_dataloader(self) -> DataLoader:
        crops = WindowCrops(
            self._fetched("train", self.keep),
            self.train_tokens,
            self.index["vocab_size"],
            self.window,
            context=self.context,
            batch_size=self.batch_size,
            seed=self.seed,
            **self._share(),
        )
        return train_loader(crops, crops.seed, crops.rank)
