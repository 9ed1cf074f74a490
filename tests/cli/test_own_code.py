"""Tasks, data modules, callbacks, optimizers and loggers of a user run without changes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.support import TINY
from tests.support.own_code import CountSteps

Run = Callable[..., Path]
OWN = "tests.support.own_code"
SHORT = (
    "--trainer.max_epochs",
    2,
    "--trainer.log_every_n_steps",
    1,
    "--trainer.accelerator",
    "cpu",
)


def own(task: str, data: str) -> tuple[str, ...]:
    return ("--model", f"{OWN}.{task}", "--data", f"{OWN}.{data}")


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("AutoEncoder", "VectorData"),
        ("AutoEncoder", "TrainingOnly"),
        ("Regression", "VectorData"),
        ("Regression", "TrainingOnly"),
        ("Regression", "DictBatches"),
        ("Regression", "ListBatches"),
        ("Regression", "StreamData"),
        ("GAN", "VectorData"),
    ],
)
def test_own_task_and_data_train_save_and_resume(run: Run, task: str, data: str) -> None:
    folder = run("fit", *own(task, data), *SHORT)
    for name in ("best.ckpt", "last.ckpt"):
        saved = torch.load(folder / "checkpoints" / name, weights_only=True)
        assert saved["global_step"] > 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["class_path"] == f"{OWN}.{task}"
    assert "seed" not in config["data"].get("init_args", {})
    steps = json.loads((folder / "results.json").read_text())["steps"]
    resumed = run("fit", "--resume", folder, "--trainer.max_epochs", 3)
    assert json.loads((resumed / "results.json").read_text())["steps"] == steps * 3 // 2


def test_own_metrics_are_reported_and_tested(run: Run, capsys) -> None:
    folder = run("fit", *own("Regression", "VectorData"), *SHORT)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("epoch 0, step 4 · valid_mse ") for line in lines), lines
    assert any(line.split()[:1] == ["mse"] and len(line.split()) == 3 for line in lines), lines
    assert {"valid_mse", "test_mse"} <= set(
        json.loads((folder / "results.json").read_text())["metrics"]
    )
    tested = run("test", "--ckpt_path", folder / "checkpoints/best.ckpt")
    assert tested.parent == folder.parent
    assert "test_mse" in json.loads((tested / "results.json").read_text())["metrics"]


def test_own_task_with_its_own_data_loaders_needs_no_data_module(run: Run) -> None:
    folder = run("fit", "--model", f"{OWN}.OwnLoaders", *SHORT)
    assert (folder / "checkpoints/best.ckpt").is_file()


def test_own_task_on_our_data_and_our_task_on_own_data(run: Run) -> None:
    run("fit", "--model", f"{OWN}.AutoEncoder", "--data", "Digits", "--model.size", 64, *SHORT)
    classes = ("--model.num_classes", 2, "--model.net.num_classes", 2)
    net = ("--model", "Classifier", "--model.net", "MLP", "--model.net.image_size", 4)
    folder = run("fit", *net, "--data", f"{OWN}.TwoClasses", *classes, *SHORT)
    arguments = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert arguments["num_classes"] == arguments["net"]["init_args"]["num_classes"] == 2


def test_own_callback_optimizer_and_logger_by_class_path(run: Run, tmp_path: Path) -> None:
    CountSteps.steps = []
    folder = run(
        *("fit", "--config", TINY, *SHORT, "--trainer.callbacks", f"{OWN}.CountSteps"),
        *("--trainer.callbacks.every", 6, "--model.optimizer", f"{OWN}.Sign"),
        *("--model.optimizer.lr", 0.001, "--trainer.logger", f"{OWN}.OwnLogger"),
        *("--trainer.logger.save_dir", tmp_path / "mine"),
    )
    assert CountSteps.steps == [6, 12, 18]
    assert list((tmp_path / "mine").rglob("metrics.csv"))
    assert (folder / "metrics.csv").is_file()


def test_argument_of_own_task_is_taken_from_the_data(run: Run, refused) -> None:
    folder = run("fit", "--model", f"{OWN}.Factories", "--data", f"{OWN}.LinkedData", *SHORT)
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["num_classes"] == 1
    message = refused("fit", *own("Factories", "VectorData"))
    assert "Factories requires 'num_classes': pass --model.num_classes VALUE" in message


def test_missing_number_of_classes_is_reported(refused) -> None:
    net = ("--model", "Classifier", "--model.net", "MLP", "--model.net.image_size", 4)
    message = refused("fit", *net, "--data", f"{OWN}.TwoClasses", *SHORT)
    assert "TwoClasses has no attribute `num_classes`" in message
    assert "--model.num_classes N --model.net.num_classes N" in message


def test_network_with_wrong_number_of_outputs_is_reported(refused) -> None:
    net = ("--model", "Classifier", "--model.net", f"{OWN}.TenOutputs")
    message = refused("fit", *net, "--data", f"{OWN}.ThreeClasses", *SHORT)
    assert (
        "TenOutputs does not fit ThreeClasses: the network has 10 outputs for 3 classes" in message
    )


def test_float_targets_for_a_classifier_are_reported(refused) -> None:
    net = ("--model", "Classifier", "--model.net", f"{OWN}.Linear", "--model.num_classes", 2)
    message = refused("fit", *net, "--data", f"{OWN}.HalfTargets", *SHORT)
    assert "or a task for regression" in message
    message = refused("fit", *net, "--data", f"{OWN}.DictBatches", *SHORT)
    assert "Classifier expects batches (inputs, targets)" in message


@pytest.mark.parametrize("flag", ["--model.net.num_classes", "--model.num_classes"])
def test_value_that_differs_from_the_data_is_reported_with_both(refused, flag: str) -> None:
    message = refused("fit", "--config", TINY, flag, 3)
    assert f"{flag.removeprefix('--')} is 3 ({flag}), but Digits.num_classes is 10" in message


def test_value_equal_to_the_data_is_accepted(run: Run) -> None:
    run("fit", "--config", TINY, "--model.net.num_classes", 10, "--trainer.fast_dev_run", "true")


def test_function_as_network_names_the_class_to_use(refused) -> None:
    message = refused("fit", "--config", TINY, "--model.net", "torchvision.models.resnet18")
    assert "--model.net modules.nets.TorchvisionNet --model.net.name resnet18" in message


@pytest.mark.parametrize("key", ["model.net", "data", "trainer.callbacks"])
def test_syntax_error_in_own_file_names_the_line(refused, tmp_path, monkeypatch, key) -> None:
    (tmp_path / "broken_code.py").write_text("import torch\nclass Own(torch.nn.Module\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = refused("fit", "--config", TINY, f"--{key}", "broken_code.Own")
    assert f"{key}: cannot import broken_code.Own" in message
    assert "broken_code.py, line 2: '(' was never closed" in message


def test_place_is_named_for_errors_of_own_networks_only(refused, tmp_path, monkeypatch) -> None:
    lines = [
        "from torch import nn",
        "class Net(nn.Module):",
        "  def __init__(self):",
        "    1 + None",
    ]
    (tmp_path / "failing_code.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    message = refused("fit", "--config", TINY, "--model.net", "failing_code.Net")
    assert "failing_code.py:4: unsupported operand" in message
    mlp = ("--model.net", "modules.nets.MLP", "--model.net.hidden_sizes", "[0]")
    message = refused("fit", "--config", TINY, *mlp)
    assert message.startswith("train.py: error: MLP: hidden_sizes must be positive")


def test_operation_without_a_bfloat16_kernel_names_the_precision(refused, monkeypatch) -> None:
    def forward(*_: object) -> None:  # as torch.nn.LSTM on a CPU with AVX2 only
        raise RuntimeError("could not create a primitive descriptor for the LSTM forward")

    monkeypatch.setattr("modules.classifier.Classifier.validation_step", forward)
    message = refused("fit", "--config", TINY, "--trainer.precision", "bf16-mixed")
    assert "with --trainer.precision bf16-mixed" in message
    assert "Use --trainer.precision 32-true" in message


def test_run_without_data_names_what_is_missing(refused) -> None:
    assert "data is missing" in refused("fit", "--model", f"{OWN}.AutoEncoder")
