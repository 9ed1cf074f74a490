"""A W&B sweep's agent starts commands that train.py understands, to the last key."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.command_line import CLI
from tests.support.configs import ROOT, SWEEPS, name

# W&B checks a sweep on its server only; these are the keys of its documentation.
KEYS = {
    *("name", "description", "project", "entity", "program", "method", "metric", "parameters"),
    *("early_terminate", "command", "run_cap"),
}
DISTRIBUTIONS = {"uniform": float, "log_uniform_values": float, "int_uniform": int}


def values_of(parameter: dict[str, Any]) -> list[Any]:
    """What an agent may be told: each value, or both ends of a range."""
    return parameter.get("values") or [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_sweep_has_the_keys_that_wandb_documents(sweep: Path) -> None:
    told = yaml.safe_load(sweep.read_text())
    assert sweep.read_text().startswith("# ")
    assert f"wandb sweep configs/{name(sweep)}.yaml" in sweep.read_text()
    assert set(told) <= KEYS
    assert told["method"] in ("grid", "random", "bayes")
    assert told["metric"]["goal"] in ("minimize", "maximize")
    assert (ROOT / told["program"]).is_file()
    stop = told.get("early_terminate")
    assert stop is None or (stop["type"] == "hyperband" and stop["min_iter"] > 0)
    for parameter in told["parameters"].values():
        if "values" in parameter:
            assert set(parameter) == {"values"}
            assert len(parameter["values"]) > 1
        else:
            assert set(parameter) == {"distribution", "min", "max"}
            kind = DISTRIBUTIONS[parameter["distribution"]]
            assert type(parameter["min"]) is type(parameter["max"]) is kind
            assert parameter["min"] < parameter["max"]


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_command_of_a_sweep_agent_is_parsed_completely(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.chdir(ROOT)
    found: list[Any] = []
    monkeypatch.setattr(CLI, "instantiate_classes", lambda self: found.append(self.config["fit"]))
    monkeypatch.setattr(CLI, "_run_subcommand", lambda self, subcommand: None)
    told = yaml.safe_load(sweep.read_text())
    choices = {key: values_of(parameter) for key, parameter in told["parameters"].items()}
    longest = max(map(len, choices.values()))
    columns = (list(itertools.islice(itertools.cycle(v), longest)) for v in choices.values())
    for values in zip(*columns, strict=True):
        trial = dict(zip(choices, values, strict=True))
        args = create_sweep_command_args({"args": {k: {"value": v} for k, v in trial.items()}})
        command = create_sweep_command(list(told["command"]))
        assert command[:4] == ["${env}", "${interpreter}", "${program}", "fit"]
        flags: list[str] = []
        for part in command[3:]:
            flags += args["args"] if part == "${args}" else [part]
        CLI.from_args(flags)
        config = found[-1]
        for key, value in trial.items():
            place = key.replace("model.", "model.init_args.").replace("data.", "data.init_args.")
            for kind in ("net", "optimizer", "lr_scheduler"):
                place = place.replace(f".{kind}.", f".{kind}.init_args.")
            read = config[place]
            assert read == (yaml.safe_load(value) if isinstance(value, str) else value), key
        assert [one.class_path.rpartition(".")[2] for one in config.trainer.logger] == [
            "WandbLogger"
        ]


def test_sweeps_are_found() -> None:
    assert len(SWEEPS) >= 2
