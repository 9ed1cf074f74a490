"""Which run `--resume` continues, what may change, and starting from weights by `--init_from`."""

import json
from pathlib import Path

import pytest
import torch

from cli.arguments import Arguments
from engine.run.folder import experiment_name
from tests.support import ROOT, TINY
from tests.support.resume import (
    ACROSS_EPOCHS,
    IMAGES,
    SHORT,
    Run,
    assert_equal_nested,
    assert_same_run,
)


def test_resume_needs_the_run_folder_only(run: Run, stopped: Path, uninterrupted: Path) -> None:
    # The config of the stopped run has the callback that crashed.
    assert run("fit", "--resume", stopped, "--trainer.callbacks", "null") == stopped
    assert_same_run(uninterrupted, stopped)


def test_run_without_a_readable_checkpoint_is_not_resumed(run: Run, stopped: Path, refused) -> None:
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(b"PK")
    assert "no readable checkpoint" in refused("fit", "--resume", stopped)
    assert run("fit", *SHORT, "--resume", "auto").name == "002"


def test_resume_auto_starts_a_new_run_after_a_complete_one(run: Run) -> None:
    first = run("fit", *SHORT)
    before = json.loads((first / "results.json").read_text())["metrics"]
    assert run("fit", *SHORT, "--resume", "auto").name == "002"
    assert run("fit", "--resume", first) == first
    assert json.loads((first / "results.json").read_text())["metrics"] == before
    assert "train/loss" in before


def test_complete_run_can_be_extended(run: Run) -> None:
    constant = (*IMAGES, "--test_after_fit", "false")  # a schedule has a fixed length
    first = run("fit", *constant)
    longer = ("--trainer.max_epochs", 4)
    uninterrupted = run("fit", *constant, *longer)
    assert_same_run(uninterrupted, run("fit", "--resume", first, *longer))


@pytest.mark.parametrize(
    ("schedule", "when"),
    [
        (("WarmupCosine",), "WarmupCosine ends at step 20"),
        (("OneCycle",), "OneCycle ends at step 20"),
        (
            ("torch.optim.lr_scheduler.PolynomialLR", "--model.lr_scheduler.total_iters", 2),
            "PolynomialLR has reached learning rate 0",
        ),
    ],
)
def test_run_with_a_finished_schedule_is_not_extended(
    run: Run, refused, schedule: tuple, when: str
) -> None:
    fit = ("--trainer.max_epochs", 2, "--trainer.limit_train_batches", 10, "--test_after_fit")
    name, *arguments = schedule
    path = name if "." in name else f"modules.optim.{name}"
    run_folder = run("fit", *IMAGES, *fit, "false", "--model.lr_scheduler", path, *arguments)
    config = (run_folder / "config.yaml").read_text()
    message = refused("fit", "--resume", run_folder, "--trainer.max_epochs", 4)
    assert when in message
    assert "--init_from" in message
    assert (run_folder / "config.yaml").read_text() == config


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
def test_resume_refuses_a_change_that_the_checkpoint_would_override(
    refused, stopped: Path, change
) -> None:
    paragraph = refused("fit", "--resume", stopped, *change)
    assert change[0].rpartition(".")[2].removeprefix("--") in paragraph
    assert "--init_from" in paragraph


@pytest.mark.parametrize("finder", ["lr_finder", "batch_size_finder"])
def test_resume_refuses_a_search_for_a_hyper_parameter(refused, stopped: Path, finder) -> None:
    overlay = ("--config", ROOT / f"configs/trainer/{finder}.yaml")
    assert "Finder" in refused("fit", *SHORT, *overlay, "--resume", stopped)


def test_argument_newer_than_the_run_has_its_default(
    run: Run, stopped: Path, refused, uninterrupted: Path
) -> None:
    path = stopped / "config.yaml"
    assert path.read_text().count("    compile: false\n") == 1
    path.write_text(path.read_text().replace("    compile: false\n", ""))
    flags = ("fit", "--resume", stopped, "--model.compile", "true")
    assert "compile: False → True" in refused(*flags)
    assert run("fit", *SHORT, "--resume", "auto") == stopped
    assert_same_run(uninterrupted, stopped)


def test_run_with_a_removed_argument_is_refused(refused, stopped: Path) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("    compile: false\n", "    gone: 1\n"))
    paragraph = refused("fit", *SHORT, "--resume", "auto")
    assert "config.yaml: " in paragraph
    assert "'gone'" in paragraph
    assert "Union" not in paragraph


def test_fit_does_not_accept_ckpt_path(refused, stopped: Path) -> None:
    paragraph = refused("fit", *SHORT, "--ckpt_path", stopped / "checkpoints/last.ckpt")
    assert "--resume" in paragraph
    assert "--init_from" in paragraph


def test_resume_of_a_folder_that_is_not_a_run_is_refused(refused, tmp_path: Path) -> None:
    assert f"{tmp_path} is no" in refused("fit", "--resume", tmp_path).replace("is not", "is no")


def test_last_resume_option_wins(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    arguments = ["fit", "--resume", "auto", "--resume", str(tmp_path)]
    assert Arguments(arguments).to_words()[1:3] == ["--config", str(tmp_path / "config.yaml")]
    arguments = ["fit", "--resume", str(tmp_path), "--resume", "auto"]
    assert Arguments(arguments).to_words() == arguments


def test_experiment_is_named_after_the_first_config_that_is_not_an_overlay() -> None:
    assert experiment_name(["configs/trainer/slurm.yaml", "configs/mnist/cnn.yaml"]) == "mnist-cnn"
    assert experiment_name(["configs/trainer/slurm.yaml"]) == "trainer-slurm"


def test_init_from_starts_a_new_run_with_the_weights(run: Run, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    no_learning = ("--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0)
    new = run("fit", *SHORT, "--init_from", best, *no_learning, "--model.lr_scheduler", "null")
    assert new != stopped
    a, b = (torch.load(path, weights_only=True) for path in (best, new / "checkpoints/last.ckpt"))
    assert_equal_nested(dict(a["state_dict"]), dict(b["state_dict"]))
    assert b["global_step"] == 30


def test_init_from_loads_the_weights_that_fit(run: Run, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    with pytest.warns(UserWarning, match=r"newly initialized: net\.head"):
        run("fit", *SHORT, "--init_from", best, "--model.net.hidden_size", 9)


def test_init_from_of_another_network_is_refused(refused, stopped: Path) -> None:
    best = stopped / "checkpoints/best.ckpt"
    mlp = ("--config", TINY, "--model.net", "modules.nets.MLP")
    message = refused("fit", *mlp, "--init_from", best)
    assert "no weight of" in message
    assert "holds modules.Classifier with modules.nets." in message


@pytest.mark.parametrize(
    "flags",
    [
        ("--trainer.val_check_interval", 4),
        # 4 batches an epoch, and the fourth ends a step: validation after 6, 12 falls at 2 and 4
        ("--trainer.val_check_interval", 6, *ACROSS_EPOCHS, "--trainer.limit_train_batches", 4),
    ],
    ids=["within an epoch", "counted across epochs"],
)
def test_validation_within_an_optimizer_step_is_refused(refused, flags: tuple) -> None:
    paragraph = refused("fit", *IMAGES, "--trainer.accumulate_grad_batches", 3, *flags)
    assert "make --trainer.val_check_interval a multiple" in paragraph


def test_validation_at_the_end_of_an_epoch_is_between_two_steps(run: Run) -> None:
    flags = ("--trainer.val_check_interval", 4, "--trainer.limit_train_batches", 4)
    short = (*flags, "--trainer.max_epochs", 1, "--test_after_fit", "false")
    assert run("fit", *IMAGES, "--trainer.accumulate_grad_batches", 3, *short, *ACROSS_EPOCHS)


def test_invalid_checkpoint_arguments_are_refused(refused) -> None:
    assert "val/loss" in refused("fit", "--config", TINY, "--checkpoint.monitor", "val/los")
    assert "mode" in refused("fit", "--config", TINY, "--checkpoint.mode", "least")
    assert "above 0" in refused("fit", "--config", TINY, "--checkpoint.every_n_steps", 0)
