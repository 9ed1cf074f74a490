"""Search files and arguments of tune.py are checked before anything is written."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import tune
from tests.support.configs import ROOT, SEARCHES
from tests.support.studies import BASE, SEARCH, tune_arguments, write
from tuning.command import ParsedCommand, best_config, check_parameters, parse_command
from tuning.search import read_search


@pytest.fixture
def tune_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run tune.py with a wrong search or argument; returns the error message."""

    def tune_error(search: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as exit:
            tune.main(tune_arguments(write(tmp_path, search), *arguments))
        assert exit.value.code == 2
        message = capsys.readouterr().err.strip()
        assert message.count("tune.py: error:") == 1
        assert 40 < len(message) < 900
        assert not (tmp_path / "runs").exists()
        return message

    return tune_error


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("model.optimizer.lr", "model.optimiser.lr", ["'optimiser'", "'optimizer'"]),
        ("model.optimizer.lr", "model.optimizer.lrr", ["'lrr'", "Did you mean 'lr'"]),
        ("model.net.channels", "model.net.chanels", ["'chanels'", "'channels'", "CNN"]),
        ("[2, 4]", "many", ["channels", "many"]),
        ("trials", "trails", ["'trails'", "Did you mean 'trials'"]),
        ("trials: 2", "trials: 0", ["trials must be at least 1"]),
        ("val/accuracy", "val/acuracy", ["val/acuracy", "Did you mean 'val/accuracy'", "val/loss"]),
        ("val/accuracy", "test/accuracy", ["test/accuracy", "val/accuracy"]),
        ("trials:", "minimize: val/loss\ntrials:", ["either minimize or maximize"]),
        ("0.001,", "1e-3,", ["'1e-3'", "1.0e-3"]),
        ("[0.001, 0.1]", "[0.1, 0.001]", ["model.optimizer.lr", "0.001"]),
        ("log: true", "lag: true", ["float takes", "'lag'", "log"]),
        ("float: [0.001, 0.1], log: true", "range: 3", ["{float: [0.0001, 0.1], log: true}"]),
        ("[[4], [2, 4]]", "[]", ["choice needs a non-empty list"]),
        ("trials:", "pruner: optuna.pruners.NopPrune\ntrials:", ["NopPrune'", "'NopPruner'"]),
        (
            "trials:",
            "sampler: {class_path: optuna.samplers.TPESampler, init_args: {sed: 1}}\ntrials:",
            ["'sed'", "'seed'"],
        ),
        ("maximize", "maximize: {", ["not valid YAML"]),
    ],
)
def test_invalid_search_is_reported(
    tune_error: Callable[..., str], old: str, new: str, parts: list[str]
) -> None:
    assert old in SEARCH
    message = tune_error(SEARCH.replace(old, new))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--workers", "0"], ["--workers must be at least 1"]),
        (["--trainer.devices", "2"], ["one device", "--workers"]),
        (["--trainer.fast_dev_run", "true"], ["fast_dev_run"]),
        (["--trainer.max_epoch", "2"], ["max_epoch'", "max_epochs"]),
        (["--resume", "runs/mine/001"], ["same command"]),
        (["--search", "nowhere.yaml"], ["cannot read nowhere.yaml"]),
    ],
)
def test_invalid_argument_is_reported(
    tune_error: Callable[..., str], arguments: list[str], parts: list[str]
) -> None:
    message = tune_error(SEARCH, *arguments)
    assert all(part in message for part in parts), message


def test_class_may_be_chosen_before_or_after_its_arguments(tmp_path: Path) -> None:
    optimizers = "  model.optimizer: {choice: [torch.optim.SGD, torch.optim.AdamW]}\n"
    at = SEARCH.index("  model.optimizer.lr")
    for text in (SEARCH + optimizers, SEARCH[:at] + optimizers + SEARCH[at:]):
        search = write(tmp_path, text)
        check_parameters(read_search(search), BASE, search)  # each probed value takes effect


@pytest.mark.parametrize("search", SEARCHES, ids=lambda path: path.stem)
def test_search_fits_the_config_in_its_comment(search: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    comment = "".join(line[1:] for line in search.open() if line.startswith("#"))
    assert search.read_text().startswith("# Day 8")
    command = re.search(r"python tune\.py (.*?[^\\])\n", comment, re.DOTALL)[1]
    options, arguments = tune.parser().parse_known_args(shlex.split(command.replace("\\\n", " ")))
    assert options.search.resolve() == search
    parsed = parse_command(arguments, options.search)
    check_parameters(read_search(options.search), parsed.arguments, options.search)


@pytest.mark.parametrize("config", ["mnist/cnn_augmented", "shakespeare/gpt_small_cpu"])
def test_best_config_contains_everything_that_differs_from_the_defaults(
    config: str, tmp_path: Path
) -> None:
    arguments = ["--config", str(ROOT / f"configs/{config}.yaml"), "--seed_everything", "3"]
    parameters = {"model.optimizer.lr": 1e-05, "data.batch_size": 24}
    path = write(tmp_path, best_config(arguments, parameters, "x"))
    flags = ["--model.optimizer.lr", "1e-05", "--data.batch_size", "24"]
    written = ParsedCommand.from_args(["fit", "--config", str(path)])
    assert (
        written.shared_config()
        == ParsedCommand.from_args(["fit", *arguments, *flags]).shared_config()
    )
    assert len(path.read_text().splitlines()) < 40
