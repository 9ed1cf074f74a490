"""Two nodes, imitated by network namespaces, train the same as two devices of one node."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, TINY
from tests.support.resume import assert_same_run
from tests.support.system import START_SECONDS, needs_root


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Two network namespaces joined by a virtual cable: 10.77.0.1 and 10.77.0.2."""
    names = [f"node{rank}-{os.getpid()}" for rank in (0, 1)]
    ends = [f"v{rank}-{os.getpid()}"[:15] for rank in (0, 1)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for rank, (name, end) in enumerate(zip(names, ends, strict=True)):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "cable")
            ip("-n", name, "address", "add", f"10.77.0.{rank + 1}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("network namespaces need the command `ip`")
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.mark.slow
@needs_root
def test_two_nodes_equal_two_devices(
    two_nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "cable")
    monkeypatch.setenv("RENDEZVOUS_SECONDS", str(START_SECONDS))
    train = (ROOT / "train.py", "fit", "--config", TINY, "--test_after_fit", "false")
    cpu = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    ddp = (*train, *cpu, "--trainer.strategy", "ddp", "--trainer.log_every_n_steps", 1)
    nodes = (*ddp, "--trainer.num_nodes", 2, "--trainer.devices", 1)
    address = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}

    def node(rank: int, *command: object, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["ip", "netns", "exec", two_nodes[rank], sys.executable, *map(str, command)],
            cwd=tmp_path,
            env={**os.environ, **environ},
        )

    manual = [
        node(rank, *nodes, "--runs_dir", "manual", **address, NODE_RANK=str(rank), LOCAL_RANK="0")
        for rank in (0, 1)
    ]
    assert [process.wait(START_SECONDS) for process in manual] == [0, 0]
    torchrun = ("-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1)
    master = ("--master-addr", address["MASTER_ADDR"], "--master-port", address["MASTER_PORT"])
    agents = [
        node(rank, *torchrun, "--node-rank", rank, *master, *nodes, "--runs_dir", "torchrun")
        for rank in (0, 1)
    ]
    assert [process.wait(START_SECONDS) for process in agents] == [0, 0]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    one = [sys.executable, *ddp, "--trainer.devices", 2, "--runs_dir", "one"]
    subprocess.run(list(map(str, one)), cwd=tmp_path, check=True, timeout=START_SECONDS)
    for name in ("manual", "torchrun"):
        assert len(list((tmp_path / name).glob("*/*"))) == 1  # rank zero's run folder only
        run, other = (tmp_path / folder / "digits-tiny/001" for folder in ("one", name))
        assert "train/loss" in (run / "metrics.csv").read_text()
        assert_same_run(run, other)  # gloo adds in the same order
