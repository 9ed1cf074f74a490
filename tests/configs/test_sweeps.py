"""Commands of W&B sweep agents are accepted by train.py."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.command_line import CLI
from tests.support.configs import ROOT, SWEEPS, name

# W&B validates sweeps on its server only; these are the documented keys.
KEYS = {
    *("name", "description", "project", "entity", "program", "method", "metric", "parameters"),
    *("early_terminate", "command", "run_cap"),
}
DISTRIBUTIONS = {"uniform": float, "log_uniform_values": float, "int_uniform": int}


def values_of(parameter: dict[str, Any]) -> list[Any]:
    """Return the values of a parameter, or both ends of its range."""
    return parameter.get("values") or [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_sweep_has_the_keys_that_wandb_documents(sweep: Path) -> None:
    content = yaml.safe_load(sweep.read_text())
    assert sweep.read_text().startswith("# ")
    assert f"wandb sweep configs/{name(sweep)}.yaml" in sweep.read_text()
    assert set(content) <= KEYS
    assert content["method"] in ("grid", "random", "bayes")
    assert content["metric"]["goal"] in ("minimize", "maximize")
    assert (ROOT / content["program"]).is_file()
    stop = content.get("early_terminate")
    assert stop is None or (stop["type"] == "hyperband" and stop["min_iter"] > 0)
    for parameter in content["parameters"].values():
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
    content = yaml.safe_load(sweep.read_text())
    choices = {key: values_of(parameter) for key, parameter in content["parameters"].items()}
    longest = max(map(len, choices.values()))
    columns = (list(itertools.islice(itertools.cycle(v), longest)) for v in choices.values())
    for values in zip(*columns, strict=True):
        trial = dict(zip(choices, values, strict=True))
        args = create_sweep_command_args({"args": {k: {"value": v} for k, v in trial.items()}})
        command = create_sweep_command(list(content["command"]))
        assert command[:4] == ["${env}", "${interpreter}", "${program}", "fit"]
        flags: list[str] = []
        for part in command[3:]:
            flags += args["args"] if part == "${args}" else [part]
        CLI.from_args(flags)
        config = found[-1]
        for key, value in trial.items():
            path = key.replace("model.", "model.init_args.").replace("data.", "data.init_args.")
            for kind in ("net", "optimizer", "lr_scheduler"):
                path = path.replace(f".{kind}.", f".{kind}.init_args.")
            expected = yaml.safe_load(value) if isinstance(value, str) else value
            assert config[path] == expected, key
        assert [one.class_path.rpartition(".")[2] for one in config.trainer.logger] == [
            "WandbLogger"
        ]


def test_sweeps_are_found() -> None:
    assert len(SWEEPS) >= 2
