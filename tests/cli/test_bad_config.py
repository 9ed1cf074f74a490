"""Errors in flags and configs: one message, exit code 2, nothing is written."""

from pathlib import Path

import pytest
import yaml

import train
from tests.support import ROOT, TINY
from tests.support.configs import write_config

FIT = ("fit", "--config", TINY)
SMALL = ("--config", TINY)


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
    ids=["misspelled", "not first"],
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
    message = refused(*FIT, "--config", write_config(tmp_path, text))
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
    message = refused(*FIT, "--config", write_config(tmp_path, text))
    assert "mine.yaml: model.net.channels: expected list of int, not [4, 'many']" in message


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


def test_config_that_is_not_utf_8_is_named(refused, tmp_path) -> None:
    (tmp_path / "latin.yaml").write_bytes("trainer: {max_epochs: 1} # très".encode("latin-1"))
    message = refused(*FIT, "--config", tmp_path / "latin.yaml")
    assert "latin.yaml is not valid YAML" in message


@pytest.mark.parametrize(
    ("net", "near"), [("modules.nets.CN", "'CNN'"), ("moduls.nets.CNN", "moduls")]
)
def test_unknown_class_is_named(refused, net: str, near: str) -> None:
    assert near in refused(*FIT, "--model.net", net)


def test_missing_config_is_named(refused) -> None:
    message = refused("fit", "--config", "configs/nowhere.yaml")
    assert "there is no config file configs/nowhere.yaml." in message


def test_yaml_syntax_error_names_file_and_line(refused, tmp_path: Path) -> None:
    message = refused("fit", "--config", write_config(tmp_path, "trainer:\n  a: [1, 2\ndata: x\n"))
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
        train.main([*FIT, "--config", str(write_config(tmp_path, "trainer: 5\n"))])
    message = "trainer: expected keys with values, as in max_epochs: 3, not 5."
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("expectation", ["0.98", "=> 0.98", ">= much", ">= 1.2.3", ">= -", ""])
def test_malformed_expectation_is_quoted(refused, expectation: str) -> None:
    message = refused(*FIT, "--expect", f'{{"test/accuracy": "{expectation}"}}')
    assert "test/accuracy" in message
    assert expectation in message


def test_evaluation_requires_a_checkpoint(refused) -> None:
    for command in ("test", "validate", "predict"):
        assert "--ckpt_path" in refused(command, *FIT[1:])


def test_missing_checkpoint_is_named_without_a_config(refused) -> None:
    message = refused("test", "--ckpt_path", "runs/none/001/checkpoints/best.ckpt")
    assert "there is no checkpoint at runs/none/001/checkpoints/best.ckpt" in message


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
    message = refused(*FIT, "--config", write_config(tmp_path, text))
    assert "YAML reads yes, no, on and off as true and false: quote such words." in message


def test_random_seed_and_default_logger_are_accepted(run, tmp_path: Path) -> None:
    short = ("--trainer.limit_train_batches", 1, "--test_after_fit", "false")
    folder = run(*FIT, *short, "--seed_everything", "true", "--trainer.logger", "true")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert isinstance(config["seed_everything"], int)
    assert not (tmp_path / "lightning_logs").exists()
