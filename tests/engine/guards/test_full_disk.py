"""A run on a full file system ends with one message and resumes bit for bit."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import TINY
from tests.support.resume import assert_same_run
from tests.support.system import needs_root


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@needs_root
def test_run_on_a_full_disk_resumes(run: Callable, runs: Path, tiny_disk: Path, capsys) -> None:
    flags = ("--trainer.max_epochs", 2, "--model.net.hidden_size", 64, "--test_after_fit", "false")
    every = ("--checkpoint.every_n_steps", 4, "--trainer.log_every_n_steps", 1)
    arguments = ("fit", "--config", TINY, *flags, *every, "--experiment", "full")
    uninterrupted = run(*arguments)
    runs.rename(runs.parent / "uninterrupted")
    runs.symlink_to(tiny_disk)
    (tiny_disk / "ballast").write_bytes(bytes(110_000))  # leaves space for three of 50 KB
    with pytest.raises(SystemExit) as exit:  # best, last, the next last and its copy are four
        run(*arguments)
    assert exit.value.code == 74
    error = capsys.readouterr().err
    pattern = r"no space left to write .*/full/001/checkpoints/best\.ckpt\.part: 0\.\d MiB free"
    assert re.search(pattern, error)
    assert "last.ckpt is complete" in error
    assert not list(tiny_disk.rglob("*.part"))
    (tiny_disk / "ballast").unlink()
    resumed = run(*arguments, "--resume", "auto")
    assert_same_run(runs.parent / "uninterrupted" / uninterrupted.relative_to(runs), resumed)
    with suppress(OSError):
        (tiny_disk / "ballast").write_bytes(bytes(300_000))
    with pytest.raises(SystemExit) as exit:
        run(*arguments)  # a new run, which fails before its first checkpoint
    assert exit.value.code == 74
    assert "0.0 MiB free in" in capsys.readouterr().err
