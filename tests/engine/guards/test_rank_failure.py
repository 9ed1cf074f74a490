"""A process that dies or never joins ends all processes of the run with one message."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from engine.guards.rank_failure import (
    EXIT_CODE,
    RankFailure,
    find_rank_failure,
    limit_rendezvous,
)
from tests.support import ROOT, TINY
from tests.support.system import START_SECONDS, free_port

ENDLESS = (
    *("fit", "--config", TINY, "--trainer.accelerator", "cpu", "--trainer.max_epochs", 100_000),
    *("--trainer.enable_progress_bar", "false"),
)
DDP = ("--config", ROOT / "configs/trainer/ddp.yaml")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
GLOO_ERROR = "[/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:29500"


def start(log: Path, *arguments: object, **environ: object) -> subprocess.Popen:
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=log.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **{name: str(value) for name, value in environ.items()}},
        )


def wait_for_training(folder: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + START_SECONDS
    while not list(folder.glob("runs/*/*/metrics.csv")):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.1)


def children(process: int) -> list[int]:
    """Process ids of the children, the oldest first."""
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in path.read_text().split()]


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def wait_for_end(process: subprocess.Popen, ranks: list[int]) -> None:
    end = time.monotonic() + 60
    while process.poll() is None or any(map(is_alive, ranks)):
        assert time.monotonic() < end, "a process is still alive after a minute"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_lightning_launcher_ends_all_processes_when_one_is_killed(
    tmp_path: Path, victim: int
) -> None:
    process = start(tmp_path / "log", ROOT / "train.py", *ENDLESS, *DDP)
    wait_for_training(tmp_path, process)
    ranks = [process.pid, children(process.pid)[0]]
    try:
        os.kill(ranks[victim], signal.SIGKILL)
        wait_for_end(process, ranks)
    finally:
        process.kill()
    output = (tmp_path / "log").read_text()
    if victim:
        assert process.returncode == EXIT_CODE
        assert f"local rank 1 (process {ranks[1]}) died of SIGKILL" in output
    else:
        assert process.returncode == -signal.SIGKILL
        assert "another process of the run died" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_torchrun_ends_all_processes_when_one_is_killed(tmp_path: Path, victim: int) -> None:
    process = start(tmp_path / "log", *TORCHRUN, ROOT / "train.py", *ENDLESS, *DDP)
    wait_for_training(tmp_path, process)
    ranks = children(process.pid)[-2:]
    try:
        os.kill(ranks[victim], signal.SIGKILL)
        wait_for_end(process, ranks)
    finally:
        process.terminate()
    output = (tmp_path / "log").read_text()
    assert process.returncode == 1
    assert f"(local_rank: {victim})" in output
    assert f"exitcode  : -9 (pid: {ranks[victim]})" in output


def strategy(monkeypatch: pytest.MonkeyPatch, num_nodes: int) -> DDPStrategy:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    strategy = DDPStrategy(
        accelerator=CPUAccelerator(),
        parallel_devices=[torch.device("cpu")],
        cluster_environment=LightningEnvironment(),
        timeout=timedelta(seconds=345),
    )
    strategy.num_nodes = num_nodes
    limit_rendezvous(strategy)
    return strategy


@pytest.mark.parametrize("node_rank", [0, 1])
def test_node_that_never_joins_is_an_error(monkeypatch: pytest.MonkeyPatch, node_rank: int) -> None:
    monkeypatch.setenv("NODE_RANK", str(node_rank))
    monkeypatch.setenv("RENDEZVOUS_SECONDS", "1")
    with pytest.raises(RankFailure, match=r"joined at 127\.0\.0\.1:\d+ within 1 seconds"):
        strategy(monkeypatch, num_nodes=2).setup_environment()


def test_rendezvous_timeout_does_not_apply_to_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        strategy(monkeypatch, num_nodes=1).setup_environment()
        group = torch.distributed.distributed_c10d._get_default_group()
        backend = group._get_backend(torch.device("cpu"))
        assert backend.options._timeout == timedelta(seconds=345)
    finally:
        torch.distributed.destroy_process_group()


def test_broken_gloo_connection_is_a_rank_failure() -> None:
    error = ValueError("while handling")
    error.__context__ = RuntimeError(GLOO_ERROR)
    failure = find_rank_failure(error, None)
    assert str(failure).startswith("another process of the run died (")
    assert find_rank_failure(RuntimeError("mat1 and mat2 shapes differ"), None) is None


def test_rank_failure_names_the_process_that_the_launcher_started() -> None:
    alive, dead = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    launcher = SimpleNamespace(procs=[alive, dead])
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    try:
        dead.kill()
        failure = find_rank_failure(RuntimeError(GLOO_ERROR), trainer)  # type: ignore[arg-type]
    finally:
        alive.kill()
    assert f"local rank 2 (process {dead.pid}) died of SIGKILL" in str(failure)
