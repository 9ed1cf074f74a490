"""A search as its YAML file tells it: what is best, how many trials, which keys try which values.

    maximize: val/accuracy                      # or minimize: val/loss
    trials: 30
    pruner: {class_path: optuna.pruners.MedianPruner, init_args: {n_warmup_steps: 5}}
    sampler: {class_path: optuna.samplers.TPESampler, init_args: {seed: 0}}
    parameters:
      model.optimizer.lr: {float: [0.0001, 0.1], log: true}
      model.net.hidden_sizes: {choice: [[64], [128], [128, 64]]}
      data.batch_size: {int: [32, 256], step: 32}

Each parameter is a key of train.py's command line, and is given in the file's order: what chooses
a class stands before what sets its arguments. Without a sampler it is TPE, without a pruner no
trial is stopped early; both are Optuna's classes, or your own. A pruner's steps are validations.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException
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
    "log and step may be left out"
)


@dataclass(frozen=True)
class Search:
    """What to search, read and checked."""

    metric: str
    direction: Literal["minimize", "maximize"]
    trials: int
    distributions: Mapping[str, BaseDistribution]  # by key of the command line
    _parser: ArgumentParser
    _told: Namespace

    def sampler(self, nth: int) -> BaseSampler:
        """The sampler of the study's nth trial, the first being 0.

        What it suggests depends on its seed, on n and on the trials before, and on nothing that a
        process remembers: a study that goes on suggests what it would have, had it never stopped.
        """
        told = self._told.clone()
        arguments = told.sampler.get("init_args", Namespace())
        told_sampler = self._parser.instantiate(told).sampler
        if arguments.get("seed") is None or isinstance(told_sampler, QMCSampler):
            return told_sampler  # a quasi-random sequence counts its points in the study
        arguments.seed += nth
        return self._parser.instantiate(told).sampler

    def pruner(self) -> BasePruner:
        return self._parser.instantiate(self._told).pruner or NopPruner()

    def describe(self) -> dict[str, Any]:
        """All that must not change while a study lasts, as plain values."""
        told = yaml.safe_load(self._parser.dump(self._told, skip_validation=True))
        return {
            self.direction: self.metric,
            "sampler": told["sampler"],
            "pruner": told.get("pruner"),
            "parameters": {
                key: json.loads(distribution_to_json(distribution))
                for key, distribution in self.distributions.items()
            },
        }

    def probes(self) -> list[dict[str, Any]]:
        """Few sets of parameters in which each bound and each choice occurs."""
        candidates = {
            key: d.choices if isinstance(d, CategoricalDistribution) else (d.low, d.high)  # type: ignore[attr-defined]
            for key, d in self.distributions.items()
        }
        longest = max(len(values) for values in candidates.values())
        return [
            {key: values[nth % len(values)] for key, values in candidates.items()}
            for nth in range(longest)
        ]


def flags(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as they stand on the command line."""
    return [
        part
        for key, value in parameters.items()
        for part in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]


def read_search(path: Path) -> Search:
    """Read a search file.

    Raises:
        MisconfigurationException: Naming the file, the key and the remedy.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise MisconfigurationException(f"--search: {path} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise MisconfigurationException(f"{path} is no valid YAML: {told}") from error
    if not isinstance(content, dict):
        raise MisconfigurationException(f"{path} is no search: it must hold `parameters:`.")
    parser = ArgumentParser(exit_on_error=False)
    for name, kind in KEYS.items():
        parser.add_argument(f"--{name}", type=kind, required=name in REQUIRED)
    parser.set_defaults(sampler=DEFAULT_SAMPLER)
    try:
        told = parser.parse_object(content)
    except ArgumentError as error:
        why = explain(error, settings_of(content), Schema(KEYS))
        raise MisconfigurationException(f"{path}: {why}") from error
    directions: tuple[Literal["minimize", "maximize"], ...] = ("minimize", "maximize")
    goals = [goal for goal in directions if told[goal]]
    if len(goals) != 1:
        raise MisconfigurationException(
            f"{path}: say what is best by one line, as in `maximize: val/accuracy` or "
            "`minimize: val/loss`."
        )
    if told.trials < 1:
        raise MisconfigurationException(f"{path}: trials is {told.trials}; it must be 1 or more.")
    if not told.parameters:
        raise MisconfigurationException(f"{path}: parameters: name at least one key to search.")
    distributions = {
        key: _distribution(f"{path}: parameters: {key}", value)
        for key, value in told.parameters.items()
    }
    search = Search(told[goals[0]], goals[0], told.trials, distributions, parser, told)
    try:
        search.sampler(0), search.pruner()
    except Exception as error:  # whatever a class makes of its arguments
        cause = root_cause(error)
        raise MisconfigurationException(f"{path}: {source_location(cause)}{cause}") from error
    return search


def _distribution(place: str, told: Any) -> BaseDistribution:
    kinds = [kind for kind in KINDS if isinstance(told, dict) and kind in told]
    if len(kinds) != 1:
        raise MisconfigurationException(f"{place} is {told!r}; write it as one of {FORMS}.")
    (kind,) = kinds
    values = told[kind]
    more = {name: value for name, value in told.items() if name != kind}
    allowed = {"log", "step"} if kind != "choice" else set()
    if unknown := more.keys() - allowed:
        takes = f"only {' and '.join(sorted(allowed))}" if allowed else "nothing else"
        raise MisconfigurationException(
            f"{place}: {kind} takes {takes}, not {', '.join(map(repr, sorted(unknown)))}."
        )
    if kind == "choice":
        if not isinstance(values, list) or not values:
            raise MisconfigurationException(f"{place}: choice needs a list, not {values!r}.")
        # Optuna keeps plain values; lists and classes are text, which the command line reads.
        plain = [json.dumps(v) if isinstance(v, list | dict) else v for v in values]
        return CategoricalDistribution(plain)
    number = int if kind == "int" else (int, float)
    if not (
        isinstance(values, list)
        and len(values) == 2
        and all(isinstance(value, number) and not isinstance(value, bool) for value in values)
    ):
        raise MisconfigurationException(
            f"{place}: {kind} needs its lowest and highest value, as in [1, 8], not {values!r}. "
            "(YAML reads 1e-3 as a text: write 0.001 or 1.0e-3.)"
        )
    try:
        made = IntDistribution if kind == "int" else FloatDistribution
        return made(*values, **more)
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"{place}: {error}") from error
