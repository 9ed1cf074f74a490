"""Values, data and networks that do not fit: one message, exit code 2."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules import FashionMNIST
from tests.support import ROOT, TINY
from tests.support.configs import write_config

FIT = ("fit", "--config", TINY)
HERE = __name__


class TooFewChannels(nn.Module):
    """A network for RGB images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs).flatten(1)


class FixedSize(nn.Module):
    """A network whose numbers of pixels and logits are not taken from the data."""

    def __init__(self, pixels: int = 784, logits: int = 10, one_row: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, logits))
        self.one_row = one_row

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits = self.layers(inputs)
        return logits.mean(dim=0, keepdim=True) if self.one_row else logits


class NanLater(nn.Module):
    """A softmax regression whose logits are NaN after a number of training batches."""

    def __init__(self, good_batches: int = 12) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.good_batches = good_batches
        self.batches = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches += self.training
        bad = self.training and self.batches > self.good_batches
        return self.layers(inputs) * (torch.nan if bad else 1.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--model.optimizer", "modules.optim.Muon", "--model.optimizer.lr", "-1"), "-1"),
        (("--model.optimizer", "SGD", "--model.optimizer.momentum", "-1"), "momentum value: -1"),
        (
            (
                *("--model.lr_scheduler", "torch.optim.lr_scheduler.LinearLR"),
                *("--model.lr_scheduler.start_factor", "2"),
            ),
            "less or equal to 1",
        ),
        (
            (
                *("--model.lr_scheduler", "torch.optim.lr_scheduler.OneCycleLR"),
                *("--model.lr_scheduler.max_lr", "0.1", "--model.lr_scheduler.total_steps", "2"),
            ),
            "OneCycleLR has total_steps 2, but the run takes ",
        ),
    ],
)
def test_value_refused_by_optimizer_or_schedule_is_reported(refused, flags, message: str) -> None:
    message = refused(*FIT, *flags)
    assert flags[0].removeprefix("--") in message
    assert message in message


def test_error_of_lightning_names_no_line_of_this_project(refused) -> None:
    message = refused(*FIT, "--trainer.devices", "3.5")
    assert "`devices` selected with `CPUAccelerator` should be an int > 0" in message
    assert "cli/command_line.py" not in message
    assert "Requirement 'torch_xla" in refused(*FIT, "--trainer.accelerator", "tpu")


def test_numbers_below_the_minimum_are_refused(refused) -> None:
    for flag, value, message in (
        ("--trainer.accumulate_grad_batches", 0, "must be at least 1 (no accumulation), got 0"),
        ("--trainer.log_every_n_steps", 0, "must be at least 1 (every step), got 0"),
        ("--trainer.gradient_clip_val", -1, "must be at least 0 (no clipping), got -1"),
        ("--seed_everything", -1, "seed_everything: -1 is not in bounds"),
        ("--trainer.check_val_every_n_epoch", 0, "must be at least 1 (every epoch), got 0"),
        ("--trainer.val_check_interval", 0, "to skip validation pass --trainer.limit_val_batches"),
        (
            "--trainer.val_check_interval",
            10_000,
            "less than or equal to the number of the training",
        ),
    ):
        assert message in refused(*FIT, flag, value)


@pytest.mark.parametrize("folder", [__file__, "/proc/nowhere"])
def test_run_folder_that_cannot_be_created_is_named(refused, folder: str) -> None:
    assert f"cannot create a run folder in {folder}" in refused(*FIT, "--experiment", folder)


@pytest.mark.parametrize("value", ["0", "-5"])
def test_batch_size_below_one_is_refused(refused, value: str) -> None:
    assert "batch_size" in refused(*FIT, "--data.batch_size", value)


def test_missing_data_without_network_says_what_to_do(refused, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(FashionMNIST.source, "mirrors", ["http://127.0.0.1:9/"])
    where = ("--data.data_dir", tmp_path / "empty")
    message = refused("fit", "--config", TINY, "--data", "datamodules.FashionMNIST", *where)
    for part in ("train-images-idx3-ubyte.gz", "127.0.0.1:9", "md5:", "DATA_DIR", "digits/cnn"):
        assert part in message


@pytest.mark.parametrize("damage", ["wrong byte", "truncated"])
def test_data_file_with_wrong_checksum_is_named(
    refused, small_data: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    file = tmp_path / "data/MNIST/raw/train-labels-idx1-ubyte.gz"
    data = file.read_bytes()
    file.write_bytes(data[:-20] if damage == "truncated" else data[:50] + b"x" + data[51:])
    flags = ("--data", "datamodules.MNIST", "--data.data_dir", tmp_path / "data")
    message = refused("fit", "--config", TINY, *flags)
    assert str(file) in message
    assert "md5" in message


@pytest.mark.slow
def test_batch_size_not_divisible_by_processes_is_refused(tmp_path: Path) -> None:
    flags = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    flags += ["--data.batch_size=129", f"--runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, str(ROOT / "train.py"), *map(str, FIT), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stderr.count("batch_size 129") == 1
    assert "multiple of 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize(
    ("net", "flags", "parts"),
    [
        ("TooFewChannels", [], ["TooFewChannels does not fit Digits", "3 channels"]),
        ("FixedSize", [], ["FixedSize does not fit Digits", "(2, 1, 8, 8)"]),
        ("FixedSize", ["pixels=64", "logits=4"], ["4 outputs for 10 classes"]),
        (
            "FixedSize",
            ["pixels=64", "one_row=true"],
            ["(1, 10)", "expected shape (2, num_classes)"],
        ),
    ],
)
def test_network_that_does_not_fit_the_data_is_named(refused, tmp_path, net, flags, parts) -> None:
    arguments = "".join(f"\n        {flag.replace('=', ': ')}" for flag in flags)
    init_args = f"\n      init_args:{arguments}" if flags else ""
    text = f"""
model:
  class_path: modules.Classifier
  init_args:
    net:
      class_path: {HERE}.{net}{init_args}
data: datamodules.Digits
"""
    message = refused("fit", "--config", write_config(tmp_path, text))
    for part in parts:
        assert part in message


def test_probabilities_out_of_bounds_are_refused(refused) -> None:
    for wrong in ("1.5", "-0.1"):
        assert f"label_smoothing must be in [0, 1), got {wrong}" in refused(
            *FIT, "--model.label_smoothing", wrong
        )
        net = ("--model.net", "modules.nets.MLP", "--model.net.dropout", wrong)
        assert "dropout probability" in refused(*FIT, *net)


def test_augmentation_that_does_not_fit_the_images_is_reported(refused) -> None:
    crop = ("--data.augmentation", "torchvision.transforms.v2.RandomCrop")
    message = refused(*FIT, *crop, "--data.augmentation.size", "28")
    assert "Digits cannot prepare a batch of shape (2, 1, 8, 8) (uint8)" in message
    assert "Required crop size (28, 28) is larger" in message


def test_image_too_small_for_the_network_is_refused(refused) -> None:
    message = refused(*FIT, "--model.net.channels", "[4, 4, 4, 4, 4]", "--model.net.padding", "0")
    assert "8x8 pixels are too small" in message


def test_nan_loss_stops_and_keeps_the_last_finite_checkpoint(refused, tmp_path, runs) -> None:
    text = f"model: {{class_path: modules.Classifier, init_args: {{net: {HERE}.NanLater}}}}\n"
    config = write_config(tmp_path, text + "data: datamodules.Digits\ntrainer: {max_epochs: 3}\n")
    message = refused("fit", "--config", config, leaves=1)
    assert "step 12 (epoch 1)" in message  # steps and epochs are counted from 0; 9 in an epoch
    (best,) = re.findall(r"Best checkpoint so far: (\S+\.ckpt)", message)
    for name in ("best.ckpt", "last.ckpt"):
        weights = torch.load(Path(best).with_name(name), weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_nan_loss_at_the_first_step_leaves_no_checkpoint(refused) -> None:
    message = refused(*FIT, "--model.optimizer", "SGD", "--model.optimizer.lr", "1e30")
    assert "NaN or infinite at step" in message
    assert "No checkpoint was saved yet" in message


@pytest.mark.parametrize("steps", [2, 0], ids=["sanity check", "first validation"])
def test_misspelled_metric_of_a_callback_is_named(refused, steps: int) -> None:
    stop = ("--trainer.callbacks", "lightning.pytorch.callbacks.EarlyStopping")
    stop += ("--trainer.callbacks.monitor", "val/los", "--trainer.num_sanity_val_steps", str(steps))
    message = refused(*FIT, *stop, leaves=steps == 0)
    assert "val/los" in message
    assert "val/loss" in message
