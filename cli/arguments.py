"""Command-line arguments as a sequence of settings, before LightningCLI parses them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import get_loader, set_loader

from cli.diagnosis import did_you_mean
from cli.signatures import catalog
from engine.errors import UserError
from engine.renamed import upgrade
from engine.run.config_text import load_yaml
from engine.run.folder import experiment_name
from modules.adapters import Adapter

PROJECT = Path(__file__).parent.parent
SUBCOMMANDS = ("fit", "validate", "test", "predict")
CLASS_KEYS = {
    "model": L.LightningModule,
    "data": L.LightningDataModule,
    "model.net": torch.nn.Module,
    "model.optimizer": torch.optim.Optimizer,
    "model.adapter": Adapter,
}
FACTORIES = ("optimizer", "lr_scheduler", "adapter")  # a new class starts from its own defaults


@dataclass(frozen=True)
class Setting:
    """One value set by a config file or a flag.

    Args:
        key: Dotted key without `init_args` and without the `+` that appends to a list; the key of
            a class is that of the object it builds.
        value: The value; for a class its path.
        source: Path of the config file, or the flag.
        text: The value of a flag as typed.
    """

    key: str
    value: Any
    source: str
    text: str | None = None


@dataclass(frozen=True)
class Argument:
    """A flag with its value, or a config file with its content.

    Args:
        name: The flag, such as `--trainer.max_epochs`.
        value: Its value; None if it takes none.
        content: Content of the file, for `--config`.
    """

    name: str
    value: str | None
    content: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> list[Setting]:
        if self.name == "--config":
            return settings_of(self.content, str(self.value))
        if self.value is None:
            return []
        try:
            value = load_yaml(self.value)
        except yaml.YAMLError:
            value = self.value
        key = tuple(self.name.removeprefix("--").split("."))
        return [replace(s, text=self.value) for s in _flatten(value, key, self.name)]

    @property
    def words(self) -> list[str]:
        """The argument as the parser takes it."""
        if self.value is None:
            return [self.name]
        return [self.name, self.value]


def _flatten(value: Any, key: tuple[str, ...], source: str) -> Iterator[Setting]:
    if key and key[-1] in ("init_args", "class_path"):
        key = key[:-1]
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flatten(item, (*key, str(name)), source)
    elif key:
        parts = (part.removesuffix("+") for part in key if part != "init_args")
        yield Setting(".".join(parts), value, source)


def settings_of(config: Mapping[str, Any], source: str = "") -> list[Setting]:
    """The settings of a config that was read already."""
    return [*_flatten(config, (), source)]


class Arguments:
    """A command line: subcommand, config files and flags in their order.

    Args:
        words: The arguments, as in `sys.argv[1:]`.

    Raises:
        UserError: If the subcommand is unknown, or a config file cannot be read.
    """

    def __init__(self, words: Sequence[str]) -> None:
        words = [str(word) for word in words]
        self.subcommand = words[0] if words else ""
        if self.subcommand not in SUBCOMMANDS:
            raise UserError(
                f"unknown subcommand {self.subcommand!r}; choose from {', '.join(SUBCOMMANDS)}, as "
                "in `python train.py fit --config configs/digits/mlp.yaml`."
                f"{did_you_mean(self.subcommand, SUBCOMMANDS)}"
            )
        self.items = [*_split(words[1:])]
        self._add_config_of_run()
        self.items = [_with_new_name(item, self._owner(item.name)) for item in self.items]
        self.items = _move_behind_class(self.items)

    def _owner(self, flag: str) -> str | None:
        key = flag.removeprefix("--").rpartition(".")[0]
        return self.chosen_class(key.replace(".init_args", "")) if key else None

    def flag(self, name: str) -> str | None:
        """The last value of a flag."""
        values = [item.value for item in self.items if item.name == name]
        return values[-1] if values else None

    @property
    def configs(self) -> list[Argument]:
        return [item for item in self.items if item.name == "--config"]

    @property
    def settings(self) -> list[Setting]:
        return [setting for item in self.items for setting in item.settings]

    def _add_config_of_run(self) -> None:
        """Start from the config of the run that --resume names, or that wrote --ckpt_path."""
        resume, checkpoint = self.flag("--resume"), self.flag("--ckpt_path")
        if resume is not None and resume != "auto":
            path = Path(resume, "config.yaml")
            if not path.is_file():
                raise UserError(
                    f"--resume: {resume} is not a run folder (it has no config.yaml). Name one, as "
                    "in --resume runs/digits-cnn/001, or use --resume auto."
                )
            self.items.insert(0, _read_argument(str(path)))
        elif checkpoint is not None and not self.configs and self.subcommand != "fit":
            path = Path(checkpoint).parent.parent / "config.yaml"
            if path.is_file():
                self.items.insert(0, _read_argument(str(path)))
            elif not Path(checkpoint).exists():
                raise UserError(f"--ckpt_path: there is no checkpoint at {checkpoint}.")

    def chosen_class(self, key: str) -> str | None:
        """The class path last chosen for a key, `model.net` for instance; None if there is none."""
        values = [s.value for s in self.settings if s.key == key and isinstance(s.value, str)]
        return values[-1] if values else None

    def explicit(self, key: str) -> Setting | None:
        """The last setting of a key, unless a later choice of another class discards it."""
        found: Setting | None = None
        path: dict[str, Any] = {}
        for setting in self.settings:
            if setting.key == key:
                found = setting
            elif key.startswith(setting.key + ".") and isinstance(setting.value, str | None):
                if path.get(setting.key, setting.value) != setting.value:
                    found = None
                path[setting.key] = setting.value
        return found

    def effective_settings(self) -> list[Setting]:
        """The settings that no later one overrides or discards."""
        keys = dict.fromkeys(s.key for s in self.settings)
        found = (self.explicit(key) for key in keys)
        return [setting for setting in found if setting is not None]

    @property
    def experiments(self) -> list[str]:
        """Config files that choose both a task and its data; the others are overlays."""
        chosen = (
            (config, {s.key for s in config.settings if isinstance(s.value, str)})
            for config in self.configs
        )
        return [str(config.value) for config, keys in chosen if {"model", "data"} <= keys]

    def experiment_folder(self, runs_dir: str | Path, experiment: str | None) -> Path:
        """The folder of the experiment's runs.

        Args:
            runs_dir: Folder of all runs.
            experiment: Its name; by default that of its config files. The config of a run folder
                belongs to the run's experiment.
        """
        configs = self.experiments or [str(config.value) for config in self.configs[:1]]
        if len(configs) == 1 and _is_run_config(Path(configs[0])):
            folder = Path(configs[0]).parent.parent
            if self.flag("--experiment") is None:
                experiment = folder.name
            if self.flag("--runs_dir") is None:
                runs_dir = folder.parent
        classes = [self.chosen_class(key) for key in ("model", "data")]  # without a config file
        named = "-".join(path.rpartition(".")[2] for path in classes if path)
        return Path(
            runs_dir, experiment or "+".join(map(_experiment_name, configs)) or named or "unnamed"
        )

    def to_words(self) -> list[str]:
        """The command line for LightningCLI's parser.

        jsonargparse keeps the arguments of an earlier class wherever a later one takes arguments
        of the same names: SGD would inherit AdamW's `weight_decay`. A `null` between two choices
        of an optimizer or schedule discards them.
        """
        words = [self.subcommand]
        chosen: set[str] = set()
        for item in self.items:
            keys = {s.key: s for s in item.settings}
            for name in FACTORIES:
                setting = keys.get(f"model.{name}")
                if setting is None or not isinstance(setting.value, str):
                    continue
                if name in chosen:
                    words += [f"--model.{name}", "null"]
                chosen.add(name)
            words += item.words
        return words


def _full_path(flag: str, value: str) -> str:
    """The class path that a bare name means: our class or torch's optimizer."""
    key = flag.removeprefix("--").removesuffix(".class_path").replace(".init_args", "")
    if key == "model.optimizer" and value in torch.optim.__all__:
        return f"torch.optim.{value}"
    return catalog(CLASS_KEYS[key]).get(value, value) if key in CLASS_KEYS else value


def _is_run_config(path: Path) -> bool:
    return path.name == "config.yaml" and path.parent.name.isdigit()


def _experiment_name(config: str) -> str:
    return experiment_name([config])


def _split(words: Sequence[str]) -> Iterator[Argument]:
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-"):
            if Path(word).suffix in (".yaml", ".yml"):
                raise UserError(f"unexpected argument {word!r}: write --config {word}.")
            raise UserError(
                f"unexpected argument {word!r}: flags are written as --key VALUE, as in "
                "--trainer.max_epochs 3."
            )
        name, equals, value = word.partition("=")
        if name == "--print_config":
            yield Argument(word, None)
            continue
        name = "--config" if name == "-c" else name
        if not equals:
            value = "".join(words[position : position + 1])
            if not value or value.startswith("--"):
                raise UserError(f"{name} needs a value, as in {name} VALUE.")
            position += 1
        if name == "--config":
            yield _read_argument(value)
        else:
            yield Argument(name, upgrade(_full_path(name, expand_home(value))))


def _move_behind_class(items: Sequence[Argument]) -> list[Argument]:
    """Move flags such as `--model.optimizer.lr` behind the class, whose choice discards them."""
    ordered: list[Argument] = []
    for item in items:
        given = {setting.key: setting.value for setting in item.settings}
        classes = [f"model.{n}" for n in FACTORIES if isinstance(given.get(f"model.{n}"), str)]
        moved = [
            earlier
            for earlier in ordered
            if earlier.name.startswith(tuple(f"--{key}." for key in classes))
            and not {setting.key for setting in earlier.settings} & given.keys()
        ]
        ordered = [earlier for earlier in ordered if earlier not in moved] + [item, *moved]
    return ordered


def _with_new_name(item: Argument, owner: str | None) -> Argument:
    """Replace a renamed argument or value of the class that a flag configures."""
    if owner is None or item.value is None or item.name == "--config":
        return item
    parent, _, leaf = item.name.rpartition(".")
    arguments = upgrade({"class_path": owner, "init_args": {leaf: item.value}})["init_args"]
    ((name, value),) = arguments.items()
    return Argument(f"{parent}.{name}", value)


def expand_values() -> None:
    """Make jsonargparse expand `~` and upgrade old names in all YAML that it reads."""
    load = get_loader("yaml")
    if not hasattr(load, "__wrapped__"):
        set_loader(
            "yaml",
            wraps(load)(lambda text: upgrade(expand_home(load(text)))),
            exceptions=(yaml.YAMLError,),
        )


def expand_home(value: Any) -> Any:
    """Replace a leading `~/` in every text of a config by the home folder."""
    if isinstance(value, str):
        return str(Path(value).expanduser()) if value == "~" or value.startswith("~/") else value
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    if isinstance(value, dict):
        return {key: expand_home(item) for key, item in value.items()}
    return value


def _read_argument(value: str) -> Argument:
    path = str(Path(value).expanduser())
    return Argument("--config", path, upgrade(expand_home(read_config(path))))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        UserError: If it does not exist, is not valid YAML, or sets a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        ours = PROJECT / path  # this repository's, from another folder
        hint = f" Did you mean {ours}?" if ours.is_file() else ""
        raise UserError(f"there is no config file {path}.{hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: it is not UTF-8 text ({error}).") from error
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = re.sub(r'\s*in "<[^"]*>",|\s+', " ", str(error)).replace("  ", " ")
        raise UserError(f"{path} is not valid YAML: {reason}.") from error
    if node is not None:
        _check_unique_keys(node, path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a config: expected keys with values, as in trainer: {{…}}.")
    return content


def _check_unique_keys(node: yaml.Node, path: str | Path, parent: str = "") -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_unique_keys(item, path, parent)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        full = f"{parent}.{name}" if parent else name
        if name in lines:
            raise UserError(
                f"{path}: key {full!r} is set twice, in lines {lines[name]} and {line}: keep one."
            )
        lines[name] = line
        _check_unique_keys(value, path, full)
