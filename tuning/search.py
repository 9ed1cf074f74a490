"""Read search files: metric, number of trials, parameters, sampler and pruner of a study.

    maximize: val/accuracy                      # or minimize: val/loss
    trials: 30
    pruner: {class_path: optuna.pruners.MedianPruner, init_args: {n_warmup_steps: 5}}
    sampler: {class_path: optuna.samplers.TPESampler, init_args: {seed: 0}}
    parameters:
      model.optimizer.lr: {float: [0.0001, 0.1], log: true}
      model.net.hidden_sizes: {choice: [[64], [128], [128, 64]]}
      data.batch_size: {int: [32, 256], step: 32}

Parameters are keys of train.py's command line and are passed in the order of the file, so a key
that chooses a class must come before those that set its arguments. The default sampler is TPE; by
default no trial is pruned. A pruner's steps are validations.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, QMCSampler

from cli.arguments import settings_of
from cli.diagnosis import Schema, explain, root_cause, source_location
from engine.errors import UserError

Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, ...] = ("minimize", "maximize")
KEYS = {
    "minimize": str | None,
    "maximize": str | None,
    "trials": int,
    "sampler": BaseSampler,
    "pruner": BasePruner | None,
    "parameters": dict[str, Any],
}
REQUIRED = ("trials", "parameters")
DEFAULT_SAMPLER = {"class_path": "optuna.samplers.TPESampler", "init_args": {"seed": 0}}
KINDS = ("float", "int", "choice")
FORMS = (
    "{float: [0.0001, 0.1], log: true}, {int: [16, 256], step: 16} or {choice: [relu, tanh]}; "
    "log and step are optional"
)


@dataclass(frozen=True)
class Search:
    """Validated search file."""

    metric: str
    direction: Direction
    num_trials: int
    distributions: Mapping[str, BaseDistribution]  # by key of the command line
    _parser: ArgumentParser
    _config: Namespace

    def sampler(self, trial_index: int) -> BaseSampler:
        """Create the sampler of the trial with this index, from 0.

        The index is added to the seed: suggestions depend only on the seed, the index and the
        earlier trials, so a resumed study suggests the same parameters as an uninterrupted one.
        """
        config = self._config.clone()
        arguments = config.sampler.get("init_args", Namespace())
        sampler = self._parser.instantiate(config).sampler
        if arguments.get("seed") is None or isinstance(sampler, QMCSampler):
            return sampler  # QMCSampler stores its position in the study
        arguments.seed += trial_index
        return self._parser.instantiate(config).sampler

    def pruner(self) -> BasePruner:
        return self._parser.instantiate(self._config).pruner or NopPruner()

    def describe(self) -> dict[str, Any]:
        """Return the settings that cannot change when a study is continued, as plain values."""
        config = yaml.safe_load(self._parser.dump(self._config, skip_validation=True))
        return {
            self.direction: self.metric,
            "sampler": config["sampler"],
            "pruner": config.get("pruner"),
            "parameters": {
                key: json.loads(distribution_to_json(distribution))
                for key, distribution in self.distributions.items()
            },
        }

    def probes(self) -> list[dict[str, Any]]:
        """Return a few parameter sets that together contain all bounds and choices."""
        candidates = {
            key: d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high)  # type: ignore[attr-defined]
            for key, d in self.distributions.items()
        }
        num_probes = max(len(values) for values in candidates.values())
        return [
            {key: values[index % len(values)] for key, values in candidates.items()}
            for index in range(num_probes)
        ]


def to_flags(parameters: Mapping[str, Any]) -> list[str]:
    """Return parameters as arguments of train.py."""
    return [
        part
        for key, value in parameters.items()
        for part in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]


def read_search(path: Path) -> Search:
    """Read and check a search file.

    Raises:
        UserError: If the file cannot be read or is not a valid search.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UserError(f"--search: cannot read {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return _parse(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _parse(content: Any) -> Search:
    if not isinstance(content, dict):
        raise UserError("not a search: expected keys such as `trials:` and `parameters:`.")
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in KEYS.items():
        parser.add_argument(f"--{name}", type=kind, required=name in REQUIRED)
    parser.set_defaults(sampler=DEFAULT_SAMPLER)
    try:
        config = parser.parse_object(content)
    except ArgumentError as error:
        raise UserError(explain(error, settings_of(content), Schema(KEYS))) from error
    directions = [direction for direction in DIRECTIONS if config[direction]]
    if len(directions) != 1:
        raise UserError(
            "set either minimize or maximize to the metric, as in `maximize: val/accuracy`."
        )
    if config.trials < 1:
        raise UserError(f"trials must be at least 1, not {config.trials}.")
    if not config.parameters:
        raise UserError("parameters must contain at least one key to search.")
    distributions = {key: _distribution(key, value) for key, value in config.parameters.items()}
    (direction,) = directions
    search = Search(config[direction], direction, config.trials, distributions, parser, config)
    try:
        search.sampler(0), search.pruner()
    except Exception as error:  # sampler and pruner may be any class with any checks
        cause = root_cause(error)
        raise UserError(f"{source_location(cause)}{cause}") from error
    return search


def _distribution(key: str, value: Any) -> BaseDistribution:
    key = f"parameters: {key}"
    kinds = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    if len(kinds) != 1:
        raise UserError(f"{key}: expected one of {FORMS}, not {value!r}.")
    (kind,) = kinds
    values = value[kind]
    options = {name: option for name, option in value.items() if name != kind}
    allowed = {"log", "step"} if kind != "choice" else set()
    if unknown := options.keys() - allowed:
        takes = " and ".join(sorted(allowed)) or "no options"
        raise UserError(
            f"{key}: {kind} takes {takes}, not {', '.join(map(repr, sorted(unknown)))}."
        )
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise UserError(f"{key}: choice needs a non-empty list, not {values!r}.")
        # Optuna stores plain values only; lists and class configs are passed as JSON.
        return CategoricalDistribution(
            [json.dumps(v) if isinstance(v, list | dict) else v for v in values]
        )
    number = int if kind == "int" else (int, float)
    if not (
        isinstance(values, list)
        and len(values) == 2
        and all(isinstance(v, number) and not isinstance(v, bool) for v in values)
    ):
        raise UserError(
            f"{key}: {kind} needs its lowest and highest value, as in [1, 8], not {values!r}. "
            "(YAML reads 1e-3 as a string: write 0.001 or 1.0e-3.)"
        )
    try:
        return (IntDistribution if kind == "int" else FloatDistribution)(*values, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {error}") from error
