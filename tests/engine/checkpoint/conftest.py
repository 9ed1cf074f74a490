"""A short run, uninterrupted and crashed, for all tests of resuming."""

import shutil
from pathlib import Path

import pytest

import train
from tests.support.resume import SHORT, Crash, crash_after


@pytest.fixture(scope="session")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `uninterrupted/001`, and `stopped/001` that crashed at step 15 of 30.

    The last checkpoint of the latter is from step 12.
    """
    folder = tmp_path_factory.mktemp("short")
    quiet = ("--trainer.enable_progress_bar", "false", "--runs_dir", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main([str(a) for a in ("fit", *SHORT, *quiet, "--experiment", "uninterrupted")])
        stopped = ("fit", *SHORT, *crash_after(15), *quiet, "--experiment", "stopped")
        with pytest.raises(Crash):
            train.main([str(a) for a in stopped])
    return folder


@pytest.fixture
def uninterrupted(short_runs: Path) -> Path:
    """The short run that was not interrupted; do not change it."""
    return short_runs / "uninterrupted/001"


@pytest.fixture
def stopped(short_runs: Path, runs: Path) -> Path:
    """A copy of the crashed run."""
    return Path(shutil.copytree(short_runs / "stopped/001", runs / "short/001"))
