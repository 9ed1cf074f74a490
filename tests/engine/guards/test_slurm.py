"""scripts/slurm: arguments, requeueing by exit code, and a real SLURM on one node."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.guards.preemption import raise_on_sigterm
from tests.support import ROOT, TINY

STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0")" "$@" >> calls
exit "${CODE:-0}"
"""


@pytest.mark.parametrize(("code", "requeues"), [(0, 0), (74, 0), (75, 1), (76, 0), (138, 1)])
def test_job_is_requeued_by_exit_code_only(tmp_path: Path, code: int, requeues: int) -> None:
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "4"}
    environ = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code)}
    command = ["bash", ROOT / "scripts/slurm/train.sbatch", "--config", "my net.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, check=False, capture_output=True)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("srun --kill-on-bad-exit=1 ")
    assert calls[0].endswith(
        "--runs_dir runs/job-7 --resume auto --config my net.yaml --trainer.devices 8 "
        "--trainer.num_nodes 4"
    )
    assert calls[1:] == ["scontrol requeue 7"] * requeues


def test_slurm_on_the_machine_causes_no_warning(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn
) -> None:
    (tmp_path / "srun").write_text(STAND_IN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run("fit", "--config", TINY, "--trainer.fast_dev_run", "true")
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]


@pytest.mark.slow
def test_real_slurm_requeues_and_the_job_resumes_bit_exact() -> None:
    script = ROOT / "scripts/slurm/test_local.sh"
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([script], env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "metrics.csv equal those of the uninterrupted run" in done.stdout
    assert "failed after process 1 was killed" in done.stdout


def test_sigterm_stays_ignored_once_a_job_has_saved_its_checkpoint() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with raise_on_sigterm():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
    try:
        with raise_on_sigterm():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by Preemption
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
