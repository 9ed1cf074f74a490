"""One process dies, the disk is full, SLURM takes the machine away: what a run makes of it."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.command_line import with_config_of_resumed
from engine.guards.peers import EXIT_CODE, Lost, Peers, call_the_roll
from engine.guards.preemption import Preempted
from engine.run.folder import experiment_name
from tests.support import ROOT, TINY
from tests.support.resume import assert_same_run

CPU = ("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
ENDLESS = ("fit", "--config", TINY, *CPU, "--trainer.max_epochs", 100_000)
NEEDS_ROOT = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="mounts and network namespaces need root"
)
PATIENCE = 240  # seconds for the start of processes on a busy machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(log: Path, *arguments: object, before: tuple = (), **environ: object) -> subprocess.Popen:
    """train.py in a process of its own, which writes into `log`."""
    command = [*before, sys.executable, ROOT / "train.py", *arguments]
    with log.open("w") as file:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=log.parent,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **{name: str(value) for name, value in environ.items()}},
        )


def await_training(log: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while " parameters learns " not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    time.sleep(1)


def child_of(process: subprocess.Popen) -> int:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(path.read_text().split()[0])


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_at_once_and_is_named(tmp_path: Path, victim: int) -> None:
    log = tmp_path / "log"
    two = ("--config", ROOT / "configs/trainer/ddp.yaml")
    process = start(log, *ENDLESS, *two)
    await_training(log, process)
    child = child_of(process)
    try:
        os.kill((process.pid, child)[victim], signal.SIGKILL)
        end = time.monotonic() + 60
        while (process.poll() is None or alive(child)) and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() == (EXIT_CODE if victim else -signal.SIGKILL)
        assert not alive(child)
    finally:
        process.kill()
    told = log.read_text()
    number = (process.pid, child)[victim]
    assert f"rank {victim} (process {number} on {socket.gethostname()}) has died" in told
    assert told.count("so all processes end") == 1
    assert "Traceback" not in told


def test_a_process_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(Lost, match=r"ranks 1, 2 of 3 did not come to 127\.0\.0\.1:\d+ within 0\.5"):
        call_the_roll(0, 3, 0.5)
    with pytest.raises(Lost, match=r"rank 0 was not at 127\.0\.0\.1:\d+ within 0\.5 seconds"):
        call_the_roll(1, 3, 0.5)


@pytest.fixture
def two_peers(monkeypatch: pytest.MonkeyPatch) -> tuple[Peers, Peers, queue.Queue]:
    """Rank 0, rank 1, and the exit codes of the processes that would have ended."""
    ended: queue.Queue = queue.Queue()
    told: list[object] = []

    def end(code: int) -> None:
        ended.put(code)
        raise SystemExit  # of the thread, as the process is that of the tests

    def broadcast(value: object) -> object:
        told.append(value)
        return told[0]

    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr("engine.guards.peers.os._exit", end)
    monkeypatch.setattr("engine.guards.peers.GRACE", 0.1)
    peers = Peers(), Peers()
    for rank, peer in enumerate(peers):
        strategy = SimpleNamespace(broadcast=broadcast)
        trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)
        peer.setup(trainer, None, "fit")  # type: ignore[arg-type]
    while not peers[0]._others:
        time.sleep(0.01)
    return *peers, ended


def test_an_error_of_one_process_is_told_by_the_others(two_peers: tuple, capsys) -> None:
    _, second, ended = two_peers
    second.on_exception(None, None, ValueError("too hot\nindeed"))
    assert ended.get(timeout=10) == EXIT_CODE
    who = f"rank 1 (process {os.getpid()} on {socket.gethostname()})"
    assert f"{who} ended by ValueError: too hot, so all" in capsys.readouterr().err


def test_who_meets_the_same_error_a_little_later_ends_by_itself(
    two_peers: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, ended = two_peers
    monkeypatch.setattr("engine.guards.peers.GRACE", 1.0)
    second.on_exception(None, None, ValueError("too hot"))
    time.sleep(0.3)  # the first has been told of it
    first.on_exception(None, None, ValueError("too hot"))
    with pytest.raises(queue.Empty):
        ended.get(timeout=2)


def test_a_connection_that_breaks_is_a_death(two_peers: tuple, capsys) -> None:
    first, _, ended = two_peers
    first._others[0].shutdown(socket.SHUT_RDWR)  # as both sides see it
    assert [ended.get(timeout=10) for _ in range(2)] == [EXIT_CODE, EXIT_CODE]
    told = capsys.readouterr().err
    assert "rank 1 (process" in told
    assert "rank 0 (process" in told
    assert told.count("has died") == 2


@pytest.mark.parametrize("reason", [None, Preempted("SIGTERM")])
def test_an_end_in_order_is_no_death(two_peers: tuple, reason: Preempted | None) -> None:
    first, second, ended = two_peers
    if reason:
        second.on_exception(None, None, reason)
    second._goodbye()
    first._others[0].shutdown(socket.SHUT_RDWR)
    with pytest.raises(queue.Empty):
        ended.get(timeout=0.5)


def test_a_stranger_is_shown_the_door(two_peers: tuple) -> None:
    first, _, ended = two_peers
    with socket.create_connection(first._others[0].getsockname()) as stranger:
        stranger.sendall(b'{"token": "guessed", "rank": 1, "who": "me"}\n')
        assert stranger.recv(1) == b""
    with pytest.raises(queue.Empty):
        ended.get(timeout=0.2)


@pytest.mark.slow
def test_a_node_that_never_comes_ends_the_others(tmp_path: Path) -> None:
    nodes = ("--trainer.strategy", "ddp", "--trainer.devices", 1, "--trainer.num_nodes", 3)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "RENDEZVOUS_SECONDS": 15}
    logs = {rank: tmp_path / f"log{rank}" for rank in (0, 2)}
    processes = [
        start(log, *ENDLESS, *nodes, **place, NODE_RANK=rank, LOCAL_RANK=0)
        for rank, log in logs.items()
    ]
    assert [process.wait(PATIENCE) for process in processes] == [EXIT_CODE, EXIT_CODE]
    for log in logs.values():
        assert re.search("rank 1 of 3 did not come to .* within 15 seconds", log.read_text())
        assert "Traceback" not in log.read_text()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@NEEDS_ROOT
def test_a_disk_that_is_really_full(run: Callable, runs: Path, tiny_disk: Path, capsys) -> None:
    flags = ("--trainer.max_epochs", 2, "--model.net.hidden_size", 64, "--test_after_fit", "false")
    every = ("--checkpoint.every_n_steps", 4, "--trainer.log_every_n_steps", 1)
    arguments = ("fit", "--config", TINY, *flags, *every, "--experiment", "full")
    whole = run(*arguments)
    runs.rename(runs.parent / "whole")
    runs.symlink_to(tiny_disk)
    (tiny_disk / "ballast").write_bytes(bytes(110_000))  # room for three checkpoints of 50 KB
    with pytest.raises(SystemExit) as exit:  # best, last, the next last and its copy are four
        run(*arguments)
    assert exit.value.code == 74
    told = capsys.readouterr().err
    assert re.search(r"no room to write .*/full/001/checkpoints/best\.ckpt\.part: 0\.\d MiB", told)
    assert "last.ckpt is whole" in told
    assert not list(tiny_disk.rglob("*.part"))
    (tiny_disk / "ballast").unlink()
    again = run(*arguments, "--resume", "auto")
    assert_same_run(runs.parent / "whole" / whole.relative_to(runs), again)
    with suppress(OSError):
        (tiny_disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(SystemExit) as exit:
        run(*arguments)  # a new run, which does not get as far as a checkpoint
    assert exit.value.code == 74
    assert "0.0 MiB are free in" in capsys.readouterr().err


TOLD = """#!/usr/bin/env bash
echo "$(basename "$0")" "$@" >> told
exit "${CODE:-0}"
"""


@pytest.mark.parametrize(("code", "again"), [(0, 0), (2, 0), (74, 0), (75, 1), (76, 0), (138, 1)])
def test_the_job_is_requeued_by_exit_code_only(tmp_path: Path, code: int, again: int) -> None:
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(TOLD)
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "4"}
    environ = {**os.environ, **given, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code)}
    command = ["bash", ROOT / "scripts/slurm/train.sbatch", "--config", "my net.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, check=False, capture_output=True)
    assert done.returncode == code
    told = (tmp_path / "told").read_text().splitlines()
    assert told[0].endswith(
        "--runs_dir runs/job-7 --resume auto --config my net.yaml"
        " --trainer.devices 8 --trainer.num_nodes 4"
    )
    assert told[1:] == ["scontrol requeue 7"] * again


def test_an_overlay_before_the_config_names_no_experiment() -> None:
    assert experiment_name(["configs/trainer/slurm.yaml", "configs/mnist/cnn.yaml"]) == "mnist-cnn"
    assert experiment_name(["configs/trainer/slurm.yaml"]) == "trainer-slurm"


def test_the_last_of_two_resumes_holds(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    told = ["fit", "--resume", "auto", "--resume", str(tmp_path)]
    assert with_config_of_resumed(told)[1:3] == ["--config", str(tmp_path / "config.yaml")]
    told = ["fit", "--resume", str(tmp_path), "--resume", "auto"]
    assert with_config_of_resumed(told) == told


def test_slurm_on_the_machine_makes_no_noise(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn
) -> None:
    (tmp_path / "srun").write_text(TOLD)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run("fit", "--config", TINY, "--trainer.fast_dev_run", "true")
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]


def test_profile_writes_its_tables_into_the_run_folder(run: Callable) -> None:
    overlay = ("--config", ROOT / "configs/trainer/profile.yaml")
    folder = run("fit", "--config", TINY, *overlay)
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()
    by_operator = ("--trainer.profiler.class_path", "PyTorchProfiler")
    few = ("--trainer.limit_train_batches", 12, "--test_after_fit", "false")
    folder = run("fit", "--config", TINY, *overlay, *by_operator, *few)
    assert "aten::" in (folder / "fit-profile.txt").read_text()
    assert list(folder.glob("*.pt.trace.json"))


@pytest.mark.slow
def test_a_real_slurm_stops_requeues_and_goes_on_bit_for_bit() -> None:
    script = ROOT / "scripts/slurm/test_local.sh"
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([script], env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "weights, optimizer and metrics.csv are those of the run that never stopped" in done.stdout
    )


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Two network namespaces, joined by a cable: 10.77.0.1 and 10.77.0.2."""
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
        pytest.skip("there is no `ip` to make network namespaces with")
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.mark.slow
@NEEDS_ROOT
def test_two_nodes_learn_what_two_devices_learn(
    two_nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "cable")
    monkeypatch.setenv("RENDEZVOUS_SECONDS", str(PATIENCE))
    train = (ROOT / "train.py", "fit", "--config", TINY, *CPU, "--test_after_fit", "false")
    ddp = (*train, "--trainer.strategy", "ddp", "--trainer.log_every_n_steps", 1)
    spread = (*ddp, "--trainer.num_nodes", 2, "--trainer.devices", 1)
    place = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500"}

    def node(rank: int, *command: object, **environ: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["ip", "netns", "exec", two_nodes[rank], sys.executable, *map(str, command)],
            cwd=tmp_path,
            env={**os.environ, **environ},
        )

    by_hand = [
        node(rank, *spread, "--runs_dir", "by_hand", **place, NODE_RANK=str(rank), LOCAL_RANK="0")
        for rank in (0, 1)
    ]
    assert [process.wait(PATIENCE) for process in by_hand] == [0, 0]
    run = ("-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1)
    where = ("--master-addr", place["MASTER_ADDR"], "--master-port", place["MASTER_PORT"])
    by_torchrun = [
        node(rank, *run, "--node-rank", rank, *where, *spread, "--runs_dir", "torchrun")
        for rank in (0, 1)
    ]
    assert [process.wait(PATIENCE) for process in by_torchrun] == [0, 0]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    one = [sys.executable, *ddp, "--trainer.devices", 2, "--runs_dir", "one"]
    subprocess.run(list(map(str, one)), cwd=tmp_path, check=True, timeout=PATIENCE)
    together, apart, torchrun = (
        tmp_path / name / "digits-tiny/001" for name in ("one", "by_hand", "torchrun")
    )
    for name in ("by_hand", "torchrun"):  # the second node makes no run folder of its own
        assert len(list((tmp_path / name).glob("*/*"))) == 1
    assert "train/loss" in (together / "metrics.csv").read_text()
    for nodes in (apart, torchrun):
        assert_same_run(together, nodes)  # gloo adds up in the same order: to the last bit
