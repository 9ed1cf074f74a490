"""User errors are one message with exit code 2, before anything is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import train
from datamodules import FashionMNIST
from tests.support import ROOT, TINY

FIT = ("fit", "--config", TINY)
SMALL = ("--config", TINY)
HERE = __name__


class TooFewChannels(nn.Module):
    """A network for RGB images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, num_classes, 3), nn.AdaptiveAvgPool2d(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs).flatten(1)


class FixedSize(nn.Module):
    """A network whose numbers of pixels and logits are not linked from the data."""

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
        self.seen = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen += self.training
        bad = self.training and self.seen > self.good_batches
        return self.layers(inputs) * (torch.nan if bad else 1.0)


def yaml_file(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text)
    return folder / "mine.yaml"


@pytest.mark.parametrize(
    ("flag", "names"),
    [
        ("--trainer.max_epoch", ["max_epoch'", "'trainer.max_epochs'"]),
        ("--trainr.max_epochs", ["trainr.max_epochs", "trainer.max_epochs"]),
        ("--seed_everythin", ["seed_everythin'", "'seed_everything'"]),
        ("--data.batch_sise", ["batch_sise", "'batch_size'", "datamodules.Digits"]),
        ("--data.init_args.batch_sise", ["batch_sise", "'batch_size'"]),
        ("--model.label_smooting", ["label_smooting", "'label_smoothing'"]),
        ("--model.net.hiden_size", ["hiden_size", "'hidden_size'", "modules.nets.CNN"]),
        ("--checkpoint.monitr", ["monitr", "'checkpoint.monitor'"]),
    ],
)
def test_unknown_flag_suggests_a_similar_key(refused, flag, names) -> None:
    message = refused(*FIT, flag, "3")
    for name in names:
        assert name in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fti", *SMALL), "unknown subcommand 'fti'; choose from fit, validate, test, predict"),
        ((*SMALL, "fit"), "unknown subcommand '--config'"),
    ],
    ids=["misspelt", "not first"],
)
def test_unknown_subcommand_lists_the_subcommands(refused, words: tuple, message: str) -> None:
    text = refused(*words)
    assert message in text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("trainer: {max_epoch: 3}", ["max_epoch'", "trainer.max_epochs"]),
        ("seed_everythin: 3", ["seed_everythin", "seed_everything"]),
        ("data: {init_args: {batch_sise: 3}}", ["batch_sise", "batch_size"]),
        ("data: {class_path: datamodules.Digits, init_args: {batch_sise: 3}}", ["'batch_size'"]),
        ("model: {init_args: {label_smooting: 0.1}}", ["label_smooting", "label_smoothing"]),
        ("model: {init_args: {net: {init_args: {hiden_size: 3}}}}", ["hiden_size", "hidden_size"]),
        (
            "model: {init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lrr: 0.1}}}}",
            ["'lrr'", "'lr'", "SGD has no argument"],
        ),
    ],
)
def test_unknown_key_in_yaml_suggests_a_similar_key(
    refused, tmp_path: Path, text: str, names: list[str]
) -> None:
    message = refused(*FIT, "--config", yaml_file(tmp_path, text))
    for name in names:
        assert name in message


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--trainer.max_epochs", "many", "expected int or null, not 'many'"),
        ("--data.batch_size", "lots", "expected int, not 'lots'"),
        ("--model.label_smoothing", "some", "expected float, not 'some'"),
        ("--model.net.channels", "[4, many]", "expected list of int, not '[4, many]'"),
        ("--model.net.channels", "many", "expected list of int, not 'many'"),
        ("--model.net", "5", "expected class path, not '5'"),
        ("--model.optimizer.lr", "fast", "expected float or Tensor, not 'fast'"),
        ("--data.augmentation", "much", "expected class path or null, not 'much'"),
        ("--trainer.precision", "17", "or one of 64, 32, 16, transformer-engine, "),
        ("--trainer.logger", "mine", "or bool or null, not 'mine'"),
        ("--test_after_fit", "perhaps", "expected bool, not 'perhaps'"),
        ("--seed_everything", "abc", "expected bool or int, not 'abc'"),
    ],
)
def test_value_of_wrong_type_names_key_and_type(
    refused, flag: str, value: str, message: str
) -> None:
    message = refused(*FIT, "--model.optimizer", "SGD", flag, value)
    assert f"{flag.removeprefix('--')}: expected" in message
    assert message in message


def test_value_of_wrong_type_names_its_file(refused, tmp_path: Path) -> None:
    text = "model:\n  init_args:\n    net:\n      init_args: {channels: [4, many]}\n"
    message = refused(*FIT, "--config", yaml_file(tmp_path, text))
    assert "mine.yaml: model.net.channels: expected list of int, not [4, 'many']" in message


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


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        (
            *("--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"),
            "StepLR requires 'step_size': pass --model.lr_scheduler.step_size VALUE.",
        ),
        (
            *("--model.net", "modules.nets.TorchvisionNet"),
            "modules.nets.TorchvisionNet requires 'name': pass --model.net.name VALUE.",
        ),
        (
            *("--data", "datamodules.TextFile"),
            "datamodules.TextFile requires 'files': pass --data.files VALUE.",
        ),
    ],
)
def test_missing_required_argument_is_named_with_its_flag(
    refused, flag: str, value: str, message: str
) -> None:
    assert message in refused(*FIT, flag, value)


def test_error_of_lightning_names_no_line_of_this_project(refused) -> None:
    message = refused(*FIT, "--trainer.devices", "3.5")
    assert "`devices` selected with `CPUAccelerator` should be an int > 0" in message
    assert "cli/command_line.py" not in message
    assert "Requirement 'torch_xla" in refused(*FIT, "--trainer.accelerator", "tpu")


def test_config_that_is_not_utf_8_is_named(refused, tmp_path) -> None:
    (tmp_path / "latin.yaml").write_bytes("trainer: {max_epochs: 1} # très".encode("latin-1"))
    message = refused(*FIT, "--config", tmp_path / "latin.yaml")
    assert "latin.yaml is not valid YAML" in message


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
    assert f"no run folder can be made in {folder}" in refused(*FIT, "--experiment", folder)


@pytest.mark.parametrize("value", ["0", "-5"])
def test_batch_size_below_one_is_refused(refused, value: str) -> None:
    assert "batch_size" in refused(*FIT, "--data.batch_size", value)


@pytest.mark.parametrize(
    ("net", "near"), [("modules.nets.CN", "'CNN'"), ("moduls.nets.CNN", "moduls")]
)
def test_unknown_class_is_named(refused, net: str, near: str) -> None:
    assert near in refused(*FIT, "--model.net", net)


def test_missing_config_is_named(refused) -> None:
    message = refused("fit", "--config", "configs/nowhere.yaml")
    assert "there is no config file configs/nowhere.yaml." in message


def test_yaml_syntax_error_names_file_and_line(refused, tmp_path: Path) -> None:
    message = refused("fit", "--config", yaml_file(tmp_path, "trainer:\n  a: [1, 2\ndata: x\n"))
    assert "mine.yaml" in message
    assert "line 3" in message


def test_missing_task_or_data_is_named(refused) -> None:
    net = ("--model", "modules.Classifier", "--model.net", "modules.nets.MLP")
    assert "error: data is missing: choose it, as in --data datamodules.Digits" in refused(
        "fit", *net
    )
    assert "error: data and model are missing: choose an" in refused("fit")


def test_trainer_without_keys_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        train.main([*FIT, "--config", str(yaml_file(tmp_path, "trainer: 5\n"))])
    message = "trainer: expected keys with values, as in max_epochs: 3, not 5."
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("promise", ["0.98", "=> 0.98", ">= much", ">= 1.2.3", ">= -", ""])
def test_malformed_expectation_is_quoted(refused, promise: str) -> None:
    message = refused(*FIT, "--expect", f'{{"test/accuracy": "{promise}"}}')
    assert "test/accuracy" in message
    assert promise in message


def test_missing_data_without_network_says_what_to_do(refused, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(FashionMNIST.source, "mirrors", ["http://127.0.0.1:9/"])
    where = ("--data.data_dir", tmp_path / "empty")
    message = refused("fit", "--config", TINY, "--data", "datamodules.FashionMNIST", *where)
    for part in ("train-images-idx3-ubyte.gz", "127.0.0.1:9", "md5:", "DATA_DIR", "digits/cnn"):
        assert part in message


@pytest.mark.parametrize("damage", ["wrong byte", "cut off"])
def test_data_file_with_wrong_checksum_is_named(
    refused, small_data: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    file = tmp_path / "data/MNIST/raw/train-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] if damage == "cut off" else whole[:50] + b"x" + whole[51:])
    data = ("--data", "datamodules.MNIST", "--data.data_dir", tmp_path / "data")
    message = refused("fit", "--config", TINY, *data)
    assert str(file) in message
    assert "md5" in message


@pytest.mark.slow
def test_batch_size_not_divisible_by_processes_is_refused(tmp_path: Path) -> None:
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    where = ["--data.batch_size=129", f"--runs_dir={tmp_path / 'runs'}"]
    command = [sys.executable, str(ROOT / "train.py"), *map(str, FIT), *two, *where]
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
    message = refused("fit", "--config", yaml_file(tmp_path, text))
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
    config = yaml_file(tmp_path, text + "data: datamodules.Digits\ntrainer: {max_epochs: 3}\n")
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


def test_evaluation_requires_a_checkpoint(refused) -> None:
    for command in ("test", "validate", "predict"):
        assert "--ckpt_path" in refused(command, *FIT[1:])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lr", "0.1"), "unknown key 'lr'. Did you mean 'model.optimizer.lr'?"),
        (("--model.net.channels", "4,4"), "not '4,4'. Write it as [4,4]."),
        (("--trainer.strategy", "dpp"), "unknown strategy 'dpp'. Did you mean 'ddp'?"),
        (("--trainer.strategy", "fsdp"), "fsdp needs GPUs. Use --config configs/trainer/fsdp.yaml"),
        (
            ("--data", "TextTabel"),
            "expected class path, not 'TextTabel'. Did you mean 'TextTable'?",
        ),
        (("--model.optimizer.lr", "0.1"), "no class is chosen for model.optimizer: put"),
    ],
)
def test_message_says_what_to_write(refused, flags: tuple, message: str) -> None:
    assert message in refused(*FIT, *flags)


def test_overlay_without_experiment_is_named(refused) -> None:
    overlay = ROOT / "configs/schedule/step.yaml"
    message = refused("fit", "--config", overlay, "--config", TINY)
    assert "step.yaml: this config sets model.lr_scheduler but does not choose a model" in message
    assert f"--config configs/digits/mlp.yaml --config {overlay}" in message


def test_unquoted_yes_and_no_are_explained(refused, tmp_path: Path) -> None:
    text = "data: {class_path: datamodules.TextTable, init_args: {classes: [no, yes]}}"
    message = refused(*FIT, "--config", yaml_file(tmp_path, text))
    assert "YAML reads yes, no, on and off as true and false: quote such words." in message


@pytest.mark.parametrize("steps", [2, 0], ids=["sanity check", "first validation"])
def test_misspelled_metric_of_a_callback_is_named(refused, steps: int) -> None:
    stop = ("--trainer.callbacks", "lightning.pytorch.callbacks.EarlyStopping")
    stop += ("--trainer.callbacks.monitor", "val/los", "--trainer.num_sanity_val_steps", str(steps))
    message = refused(*FIT, *stop, leaves=steps == 0)
    assert "val/los" in message
    assert "val/loss" in message


def test_random_seed_and_default_logger_are_accepted(run, tmp_path: Path) -> None:
    short = ("--trainer.limit_train_batches", 1, "--test_after_fit", "false")
    folder = run(*FIT, *short, "--seed_everything", "true", "--trainer.logger", "true")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert isinstance(config["seed_everything"], int)
    assert not (tmp_path / "lightning_logs").exists()
