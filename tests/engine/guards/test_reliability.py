"""One process dies, the disk is full, SLURM takes the machine away: what a run makes of it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cli.arguments import Arguments
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
    assert Arguments(told).to_words()[1:3] == ["--config", str(tmp_path / "config.yaml")]
    told = ["fit", "--resume", str(tmp_path), "--resume", "auto"]
    assert Arguments(told).to_words() == told


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
