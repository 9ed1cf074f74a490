"""TokenStream: batches depend on (seed, step), not on the shards on the disk."""

import functools
import http.server
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch

from datamodules import TokenStream
from datamodules.language_modeling.token_stream import ShardCache, WindowCrops
from engine.errors import UserError
from tests.support import ROOT
from tests.support.resume import Crash, assert_same_run, crash_after
from tests.support.synthetic_data import make_shards

SIZES = {"context": 16, "batch_size": 4}


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """Write ten training shards of 300 tokens each and two validation shards."""
    return make_shards(tmp_path / "remote", shard_tokens=300)


@pytest.fixture
def stream(tmp_path: Path, remote: Path) -> Callable[..., TokenStream]:
    def stream(disk: str = "disk", share: tuple[int, int] = (0, 1), **changes) -> TokenStream:
        arguments = {"url": remote.as_uri(), "window": 3, "data_dir": str(tmp_path / disk)}
        data = TokenStream(**(arguments | SIZES | changes))
        message = {"rank": share[0], "num_replicas": share[1]}
        data.trainer = SimpleNamespace(distributed_sampler_kwargs=message)
        return data

    return stream


def crops(data: TokenStream) -> WindowCrops:
    data.prepare_data()
    data.setup("fit")
    return data.train_dataloader().dataset


def on_disk(data: TokenStream, split: str = "train") -> set[int]:
    """Return the numbers of the downloaded shards."""
    fetched = ShardCache(data.url, data.folder, data._shards(split), data._dtype, keep=True)
    return {i for i in range(len(fetched.shards)) if fetched.path(i).exists()}


def settle(batches: WindowCrops) -> None:
    """Wait for running downloads."""
    batches.cache._threads.submit(lambda: None).result()
    limit = time.monotonic() + 20
    while batches.cache._threads._work_queue.qsize() and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(0.1)


def test_batch_does_not_depend_on_earlier_batches(stream: Callable[..., TokenStream]) -> None:
    straight = crops(stream("a"))
    seen = [straight[step] for step in range(2 * len(straight))]
    assert len(straight) == 3000 // (4 * 16)
    later = crops(stream("b"))  # another machine without shards
    for step in (70, 3, 46, 47, 91):
        for one, other in zip(seen[step], later[step], strict=True):
            assert torch.equal(one, other)
    other_seed = crops(stream("a", seed=1))
    assert not torch.equal(seen[5][0], other_seed[5][0])


def test_global_batch_does_not_depend_on_world_size(stream: Callable[..., TokenStream]) -> None:
    whole = crops(stream())
    parts = [crops(stream(share=(rank, 2))) for rank in range(2)]  # sharing a disk
    for step in range(60):
        halves = torch.cat([part[step][0] for part in parts])
        assert torch.equal(whole[step][0], halves)


def test_each_shard_is_in_equally_many_windows(
    stream: Callable[..., TokenStream], remote: Path
) -> None:
    batches = crops(stream())
    orders = []
    for epoch in range(3):
        windows = [batches.shards_at((epoch, first)) for first in range(10)]
        assert all(len(set(window)) == 3 for window in windows)
        assert set(Counter(chain.from_iterable(windows)).values()) == {3}
        assert all(len(set(a) & set(b)) == 2 for a, b in pairwise(windows))
        orders.append([window[0] for window in windows])
    assert len(set(map(tuple, orders))) == 3
    assert batches.shards_at((0, 10)) == batches.shards_at((1, 0))
    positions = [batches.position(step) for step in range(len(batches))]
    assert set(Counter(positions).values()) <= {4, 5}  # 46 steps, 10 windows

    # Every crop comes from the concatenated shards of its window.
    shards = [np.fromfile(remote / f"train-{i:05}.bin", "<u2").tolist() for i in range(10)]
    for step in (0, 20, 50):
        window = batches.shards_at(batches.position(step))
        row = list(chain.from_iterable(shards[i] for i in window))
        crop = torch.cat([batches[step][0][:, :1], batches[step][1]], dim=1).tolist()
        for tokens in crop:
            assert any(row[i : i + 17] == tokens for i in range(len(row)))


def test_disk_has_the_window_and_the_next_shard(stream: Callable[..., TokenStream]) -> None:
    data = stream()
    batches = crops(data)
    for step in range(46):
        batches[step]
        settle(batches)
        first = batches.position(step)
        wanted = set(batches.shards_at(first)) | set(batches.shards_at((first[0], first[1] + 1)))
        assert on_disk(data) == wanted
    assert on_disk(data, "val") == {0, 1}

    kept = stream("all", keep=True)
    batches = crops(kept)
    for step in range(46):
        batches[step]
    assert on_disk(kept) == set(range(10))


def test_next_shard_is_prefetched(
    tmp_path: Path, remote: Path, stream: Callable[..., TokenStream]
) -> None:
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(str(arguments[0]))

    handler = functools.partial(Handler, directory=str(remote))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = stream("by http", url=f"http://127.0.0.1:{server.server_port}/")
        batches = crops(data)
        batches[0]
        settle(batches)
        before = list(asked)
        batches[5]  # in the second window
        coming = batches.shards_at((0, 2))[-1]
        settle(batches)
        assert sum("train-" in line for line in before) == 4
        assert [line.split()[1] for line in asked[len(before) :]] == [f"/train-{coming:05}.bin"]
        server.shutdown()
    for one, other in zip(batches[5], crops(stream())[5], strict=True):
        assert torch.equal(one, other)


def test_fsspec_protocols_are_supported(remote: Path, stream: Callable[..., TokenStream]) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(remote), "/bucket", recursive=True)
    try:
        there = crops(stream("from memory", url="memory://bucket"))
        assert torch.equal(there[9][0], crops(stream())[9][0])
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.slow
def test_resume_is_bit_exact_on_another_machine(
    tmp_path: Path, remote: Path, run: Callable[..., Path]
) -> None:
    arguments = (
        *("--config", ROOT / "configs/source/gpt.yaml"),
        *("--config", ROOT / "configs/size/gpt-nano.yaml"),
        *("--data", "datamodules.TokenStream", "--data.url", remote.as_uri()),
        *("--data.window", 2, "--data.context", 32, "--data.batch_size", 4),
        *("--data.data_dir", tmp_path / "disk", "--trainer.max_steps", 30),
        *("--trainer.val_check_interval", 10, "--trainer.log_every_n_steps", 1),
        *("--checkpoint.every_n_steps", 5, "--trainer.precision", "32-true"),
        *("--trainer.callbacks", "null"),
    )
    uninterrupted = run("fit", *arguments, "--experiment", "whole")
    shutil.rmtree(tmp_path / "disk")
    with pytest.raises(Crash):
        run("fit", *arguments, "--experiment", "cut", *crash_after(17))
    shutil.rmtree(tmp_path / "disk")
    folder = next((tmp_path / "runs/cut").glob("*"))
    assert run("fit", "--resume", folder, "--trainer.callbacks", "null") == folder
    assert_same_run(uninterrupted, folder)


@pytest.fixture
def wrong(stream: Callable[..., TokenStream]) -> Iterator[Callable[..., str]]:
    def wrong(**changes: object) -> str:
        with pytest.raises(UserError) as raised:
            crops(stream(**changes))[0]
        return str(raised.value)

    return wrong


def test_user_errors_are_reported_before_training(
    tmp_path: Path,
    remote: Path,
    wrong: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "window must be at least 1" in wrong(window=0)
    assert "use datamodules.TokenShards for a local folder" in wrong(url="/data/shards")
    assert "cannot read file:" in wrong(url=f"file://{tmp_path}/nothing")
    assert "rotocol not known: carrier" in wrong(url="carrier://pigeon")
    assert "Install s3fs" in wrong(url="s3://bucket/shards")
    assert "3000 training tokens" in wrong(context=400)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/index.json").write_text("{}")
    assert "is damaged or not an index" in wrong(url=(tmp_path / "other").as_uri())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "use a smaller --data.window" in wrong()


def test_damaged_shard_is_reported(remote: Path, wrong: Callable) -> None:
    for path in remote.glob("train-*.bin"):
        data = bytearray(path.read_bytes())
        data[10] ^= 1
        path.write_bytes(data)
    message = wrong()
    assert "hash" in message
    assert "train-0000" in message
