"""A resumed run equals, bit for bit, the run that was not interrupted."""

import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torchvision import models

from datamodules.loading.loader import BatchLoader
from datamodules.loading.whole_batches import BatchTensorDataset, TrainingBatchSampler
from engine.guards.full_disk import DiskFull
from engine.guards.preemption import EXIT_CODE
from tests.support import ROOT
from tests.support.resume import (
    CASES,
    FAST_CASES,
    SHORT,
    Crash,
    Run,
    SendSignalAfter,
    assert_same_run,
    crash_after,
)
from tests.support.synthetic_data import make_image_folder

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("case", "crash"),
    [
        *((case, 23) for case in FAST_CASES),
        *(pytest.param(case, 23, marks=slow) for case in CASES if case not in FAST_CASES),
        *(pytest.param(case, crash, marks=slow) for case in CASES for crash in (1, 10)),
    ],
)
def test_resume_is_bit_exact(run: Run, case: str, crash: int) -> None:
    if case == "translation":
        pytest.importorskip("sacrebleu")
    arguments = (*CASES[case], "--test_after_fit", "false")
    uninterrupted = run("fit", *arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run("fit", *arguments, "--experiment", "stopped", *crash_after(crash))
    resumed = run("fit", *arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)


@slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU needs g++")
@pytest.mark.parametrize("case", ["text", "augmentation"])
def test_resume_of_a_compiled_network_is_bit_exact(run: Run, case: str) -> None:
    torch.compiler.reset()
    counters.clear()
    arguments = (*CASES[case], "--model.compile", "true", "--test_after_fit", "false")
    uninterrupted = run("fit", *arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run("fit", *arguments, "--experiment", "stopped", *crash_after(10))
    resumed = run("fit", *arguments, "--experiment", "stopped", "--resume", "auto")
    assert counters["stats"]["unique_graphs"] > 0  # it was compiled
    assert_same_run(uninterrupted, resumed)


@slow
@pytest.mark.parametrize(
    "crash",
    # Four batches an epoch, a checkpoint after every third: the backbone is frozen for two epochs,
    # trained from step 8, and its learning rate grows in the fourth epoch.
    [14, 4, 8, 9],
)
def test_resume_with_an_unfrozen_backbone_is_bit_exact(
    run: Run, tmp_path: Path, crash: int
) -> None:
    make_image_folder(tmp_path / "insects", {"train": 8, "val": 3, "test": 1}, side=40)
    torch.manual_seed(1)
    torch.save(models.shufflenet_v2_x0_5().state_dict(), tmp_path / "net.pth")
    arguments = (
        *("fit", "--config", ROOT / "configs/hymenoptera/squeezenet.yaml"),
        *("--model.net.name", "shufflenet_v2_x0_5", "--model.net.pretrained", "net.pth"),
        *("--data.data_dir", tmp_path, "--data.folder", "insects", "--data.num_workers", 0),
        *("--data.image_size", 33, "--data.shorter_side", 40, "--data.batch_size", 4),
        *("--data.augmentation", "torchvision.transforms.v2.RandomResizedCrop"),
        *("--data.augmentation.size", 33, "--trainer.log_every_n_steps", 1),
        *("--trainer.max_epochs", 4, "--trainer.precision", "32-true"),
        *("--checkpoint.every_n_steps", 3, "--trainer.callbacks", "callbacks.BackboneFinetuning"),
        *("--trainer.callbacks.unfreeze_at_epoch", 2, "--trainer.callbacks.growth", 2),
    )
    uninterrupted = run(*arguments, "--experiment", "uninterrupted")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *crash_after(crash))
    resumed = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(uninterrupted, resumed)


@pytest.mark.slow
def test_run_may_be_interrupted_repeatedly(run: Run, stopped: Path, uninterrupted: Path) -> None:
    for _ in range(2):
        with pytest.raises(Crash):
            run("fit", *SHORT, "--resume", "auto", *crash_after(6))
    assert run("fit", *SHORT, "--resume", "auto") == stopped
    assert_same_run(uninterrupted, stopped)


def test_signal_saves_a_checkpoint_between_two_steps(
    run: Run, runs: Path, uninterrupted: Path, capsys
) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    # Lightning's callback comes before that of the run: the latter saves.
    other = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT, *crash_after(6, SendSignalAfter), other)
    assert exit.value.code == EXIT_CODE
    folder = runs / "short/001"
    expected = f"Interrupted by SIGUSR1 at step 6. Checkpoint saved; resume with: .* {folder}"
    assert re.search(expected, capsys.readouterr().err)
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 6
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before
    assert_same_run(uninterrupted, run("fit", *SHORT, "--resume", "auto"))


def test_signal_before_the_first_step_saves_nothing(run: Run, runs: Path, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT, "--trainer.callbacks+=tests.support.resume.SendSignalAtStart")
    assert exit.value.code == EXIT_CODE
    error = capsys.readouterr().err
    assert "Interrupted by SIGTERM before the first step; nothing was saved." in error
    assert not list(runs.glob("short/*"))


def test_signal_while_a_run_starts_leaves_no_folder(run: Run, runs: Path, capsys) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT, "--trainer.callbacks+=tests.support.resume.SendSignalInSetup")
    assert exit.value.code == EXIT_CODE
    assert "Interrupted by SIGTERM outside training" in capsys.readouterr().err
    assert not list(runs.glob("*/*"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_resume_falls_back_to_best_ckpt_if_last_ckpt_is_damaged(
    run: Run, stopped: Path, uninterrupted: Path
) -> None:
    last = stopped / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert (stopped / "checkpoints/best.ckpt").is_file()
    assert_same_run(uninterrupted, run("fit", *SHORT, "--resume", "auto"))


def test_full_disk_keeps_the_last_checkpoint(
    run: Run, runs: Path, uninterrupted: Path, monkeypatch, capsys
) -> None:
    """The disk is full during the second save."""
    true_save, saves = torch.save, []

    def save(state: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        saves.append(target)
        if len(saves) > 1:
            raise OSError(28, "No space left on device")
        true_save(state, target, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT)
    monkeypatch.undo()
    assert exit.value.code == DiskFull.exit_code == 74
    error, folder = capsys.readouterr().err, runs / "short/001"
    assert f"no space left to write {folder / 'checkpoints/last.ckpt.part'}" in error
    assert "MiB free in" in error
    assert f"resume with: python train.py fit --resume {folder}" in error
    assert not list(folder.rglob("*.part"))
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert_same_run(uninterrupted, run("fit", *SHORT, "--resume", "auto"))


def test_ranks_draw_different_random_numbers() -> None:
    rows = BatchTensorDataset(torch.arange(40))

    def draws(rank: int, start: int = 0) -> list[float]:
        loader = BatchLoader(rows, batches=TrainingBatchSampler(40, 10), seed=3, rank=rank)
        loader.load_state_dict({"position": start})
        return [torch.rand(()).item() for _ in loader]

    assert draws(0) == draws(0)
    assert draws(0, start=2) == draws(0)[2:]
    assert not set(draws(0)) & set(draws(1))
