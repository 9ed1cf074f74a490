"""A run that was interrupted and goes on is, bit for bit, the run that never was."""

import json
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
    ACROSS,
    CASES,
    PICTURES,
    TINY,
    Crash,
    Run,
    SignalAfter,
    after,
    assert_equal_nested,
    assert_same_run,
)
from tests.support.synthetic_data import make_image_folder


@pytest.mark.parametrize(
    "crash", [*(pytest.param(number, marks=pytest.mark.slow) for number in (1, 6, 10, 15)), 23]
)
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_goes_on_is_the_run_that_never_stopped(run: Run, case: str, crash: int) -> None:
    arguments = (*CASES[case], "--test_after_fit", "false")
    whole = run("fit", *arguments, "--experiment", "whole")
    with pytest.raises(Crash):
        run("fit", *arguments, "--experiment", "stopped", *after(crash))
    again = run("fit", *arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(whole, again)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU needs g++")
@pytest.mark.parametrize("case", ["text", "augmentation"])
def test_a_compiled_net_goes_on(run: Run, case: str) -> None:
    torch.compiler.reset()
    counters.clear()
    arguments = (*CASES[case], "--model.compile", "true", "--test_after_fit", "false")
    whole = run("fit", *arguments, "--experiment", "whole")
    with pytest.raises(Crash):
        run("fit", *arguments, "--experiment", "stopped", *after(10))
    again = run("fit", *arguments, "--experiment", "stopped", "--resume", "auto")
    assert counters["stats"]["unique_graphs"] > 0  # else it was not compiled at all
    assert_same_run(whole, again)


@pytest.mark.parametrize(
    ("crash", "growth"),
    # Four batches an epoch, a checkpoint at every third: the backbone is frozen in the first two
    # epochs, joins in the third, at 8, and learns faster in the fourth.
    [(7, 2), (14, 2), *(pytest.param(n, 2, marks=pytest.mark.slow) for n in (2, 4, 8, 9, 12))],
)
def test_a_backbone_that_joined_goes_on(
    run: Run, tmp_path: Path, crash: int, growth: float
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
        *("--trainer.callbacks.unfreeze_at_epoch", 2, "--trainer.callbacks.growth", growth),
    )
    whole = run(*arguments, "--experiment", "whole")
    with pytest.raises(Crash):
        run(*arguments, "--experiment", "stopped", *after(crash))
    again = run(*arguments, "--experiment", "stopped", "--resume", "auto")
    assert_same_run(whole, again)


SHORT = (*CASES["mid-epoch"], "--test_after_fit", "false", "--experiment", "short")


@pytest.fixture
def stopped(run: Run, runs: Path) -> Path:
    """A run that crashed at step 15 of 30, three steps after its last checkpoint."""
    with pytest.raises(Crash):
        run("fit", *SHORT, *after(15))
    return runs / "short/001"


def test_a_run_may_be_interrupted_again_and_again(run: Run, stopped: Path) -> None:
    for _ in range(2):
        with pytest.raises(Crash):
            run("fit", *SHORT, "--resume", "auto", *after(6))
    again = run("fit", *SHORT, "--resume", "auto")
    assert again == stopped
    assert_same_run(run("fit", *SHORT), again)


def test_a_folder_is_enough_to_go_on(run: Run, stopped: Path) -> None:
    # The callback that crashed is in its config: without it, as an overlay would leave it out.
    again = run("fit", "--resume", stopped, "--trainer.callbacks", "null")
    assert again == stopped
    assert_same_run(run("fit", *SHORT), again)


def test_a_signal_stops_between_two_steps_with_a_checkpoint(run: Run, runs: Path, capsys) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT, *after(6, SignalAfter))
    assert exit.value.code == EXIT_CODE
    told = capsys.readouterr().err
    assert "stopped by SIGUSR1 after step 6" in told
    assert f"--resume {runs / 'short/001'}" in told
    state = torch.load(runs / "short/001/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 6
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before
    again = run("fit", *SHORT, "--resume", "auto")
    assert_same_run(run("fit", *SHORT), again)


def test_a_signal_before_the_first_step_promises_nothing(run: Run, runs: Path, capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT, f"--trainer.callbacks+={__name__}.SignalAtOnce")
    assert exit.value.code == EXIT_CODE
    told = capsys.readouterr().err
    assert "stopped by SIGTERM before the first step: there is nothing to go on with." in told
    assert not list(runs.glob("short/*"))


def test_a_damaged_last_checkpoint_gives_way_to_the_best(run: Run, stopped: Path) -> None:
    last = stopped / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert (stopped / "checkpoints/best.ckpt").is_file()
    again = run("fit", *SHORT, "--resume", "auto")
    assert_same_run(run("fit", *SHORT), again)


def test_a_run_without_any_whole_checkpoint_begins_anew(run: Run, stopped: Path, refused) -> None:
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(b"PK")
    assert "has no checkpoint that can be read" in refused("fit", "--resume", stopped)
    assert run("fit", *SHORT, "--resume", "auto").name == "002"


def test_a_complete_run_is_not_gone_on_with(run: Run) -> None:
    first = run("fit", *SHORT)
    before = json.loads((first / "results.json").read_text())["metrics"]
    assert run("fit", *SHORT, "--resume", "auto").name == "002"
    assert run("fit", "--resume", first) == first
    assert json.loads((first / "results.json").read_text())["metrics"] == before
    assert "train/loss" in before


def test_a_complete_run_may_be_made_longer(run: Run) -> None:
    steady = (*PICTURES, "--test_after_fit", "false")  # a schedule's length is fixed at the start
    first = run("fit", *steady)
    longer = ("--trainer.max_epochs", 4)
    whole = run("fit", *steady, *longer)
    assert_same_run(whole, run("fit", "--resume", first, *longer))


@pytest.mark.parametrize(
    "change",
    [
        ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.1),
        ("--model.net.hidden_size", 9),
        ("--seed_everything", 5),
        ("--data.batch_size", 32),
        ("--trainer.limit_train_batches", 5),
    ],
)
def test_what_the_checkpoint_would_overrule_is_refused(refused, stopped: Path, change) -> None:
    paragraph = refused("fit", "--resume", stopped, *change)
    assert change[0].rpartition(".")[2].removeprefix("--") in paragraph
    assert "--init_from" in paragraph


@pytest.mark.parametrize("finder", ["lr_finder", "batch_size_finder"])
def test_a_search_comes_too_late_for_a_run_that_goes_on(refused, stopped: Path, finder) -> None:
    overlay = ("--config", ROOT / f"configs/trainer/{finder}.yaml")
    assert "a run that goes on keeps its " in refused("fit", *SHORT, *overlay, "--resume", stopped)


def test_a_run_that_is_older_than_an_argument_goes_on_with_its_default(
    run: Run, stopped: Path, refused
) -> None:
    path = stopped / "config.yaml"
    assert path.read_text().count("    compile: false\n") == 1
    path.write_text(path.read_text().replace("    compile: false\n", ""))
    assert "compile was False, is True" in refused(
        "fit", "--resume", stopped, "--model.compile", "true"
    )
    again = run("fit", *SHORT, "--resume", "auto")
    assert again == stopped
    assert_same_run(run("fit", *SHORT), again)


def test_a_run_with_an_argument_that_is_gone_is_refused(refused, stopped: Path) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("    compile: false\n", "    gone: 1\n"))
    paragraph = refused("fit", *SHORT, "--resume", "auto")
    assert "config.yaml: modules.Classifier has no argument 'gone'" in paragraph
    assert "Union" not in paragraph


def test_fit_takes_no_bare_checkpoint(refused, stopped: Path) -> None:
    paragraph = refused("fit", *SHORT, "--ckpt_path", stopped / "checkpoints/last.ckpt")
    assert "--resume" in paragraph
    assert "--init_from" in paragraph


def test_what_is_no_run_folder_is_refused(refused, tmp_path: Path) -> None:
    assert "is no run folder" in refused("fit", "--resume", tmp_path)


def test_init_from_begins_a_new_run_with_the_weights(run: Run, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    still = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0)
    new = run("fit", *SHORT, "--init_from", best, *still, "--model.lr_scheduler", "null")
    assert new != stopped
    a, b = (torch.load(path, weights_only=True) for path in (best, new / "checkpoints/last.ckpt"))
    assert_equal_nested(dict(a["state_dict"]), dict(b["state_dict"]))
    assert b["global_step"] == 30


def test_init_from_keeps_what_fits(run: Run, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    with pytest.warns(UserWarning, match=r"freshly initialised are net\.head"):
        run("fit", *SHORT, "--init_from", best, "--model.net.hidden_size", 9)


def test_init_from_of_another_net_is_refused(refused, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    mlp = ("--config", TINY, "--model.net", "modules.nets.MLP")
    assert "no weight of" in refused("fit", *mlp, "--init_from", best)


@pytest.mark.parametrize(
    "flags",
    [
        ("--trainer.val_check_interval", 4),
        # 4 batches an epoch, and the fourth ends a step: validation after 6, 12 falls at 2 and 4
        ("--trainer.val_check_interval", 6, *ACROSS, "--trainer.limit_train_batches", 4),
    ],
    ids=["within an epoch", "counted across epochs"],
)
def test_validation_within_an_optimizer_step_is_refused(refused, flags: tuple) -> None:
    paragraph = refused("fit", *PICTURES, "--trainer.accumulate_grad_batches", 3, *flags)
    assert "make --trainer.val_check_interval a multiple" in paragraph


def test_validation_at_the_end_of_an_epoch_is_always_between_two_steps(run: Run) -> None:
    flags = ("--trainer.val_check_interval", 4, "--trainer.limit_train_batches", 4)
    assert run("fit", *PICTURES, "--trainer.accumulate_grad_batches", 3, *flags, *ACROSS)


def test_a_full_disk_costs_no_checkpoint_and_says_what_to_do(
    run: Run, runs: Path, monkeypatch, capsys
) -> None:
    """The disk is full in the middle of the second writing."""
    true_save, written = torch.save, []

    def save(state: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        written.append(target)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        true_save(state, target, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(SystemExit) as exit:
        run("fit", *SHORT)
    monkeypatch.undo()
    assert exit.value.code == DiskFull.exit_code == 74
    told = capsys.readouterr().err
    folder = runs / "short/001"
    assert f"no room to write {folder / 'checkpoints/last.ckpt.part'}" in told
    assert "MiB are free in" in told
    assert f"last.ckpt is whole; make room, and `python train.py fit --resume {folder}`" in told
    assert not list(folder.rglob("*.part"))
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    again = run("fit", *SHORT, "--resume", "auto")
    assert again == folder
    assert_same_run(run("fit", *SHORT), again)


def test_two_processes_draw_different_random_numbers() -> None:
    rows = BatchTensorDataset(torch.arange(40))

    def drawn(rank: int, start: int = 0) -> list[float]:
        loader = BatchLoader(rows, batches=TrainingBatchSampler(40, 10), seed=3, rank=rank)
        loader.load_state_dict({"position": start})
        return [torch.rand(()).item() for _ in loader]

    assert drawn(0) == drawn(0)
    assert drawn(0, start=2) == drawn(0)[2:]
    assert not set(drawn(0)) & set(drawn(1))


def test_an_unknown_metric_or_mode_is_refused(refused) -> None:
    paragraph = refused("fit", "--config", TINY, "--checkpoint.monitor", "val/los", leaves=1)
    assert "val/loss" in paragraph
    assert "mode" in refused("fit", "--config", TINY, "--checkpoint.mode", "least")
    assert "above 0" in refused("fit", "--config", TINY, "--checkpoint.every_n_steps", 0)
