"""Old public names: checkpoints, configs and users' code that contain them keep working.

There are tables for class paths, constructor arguments and argument values. `upgrade` rewrites
class descriptions (`class_path` and `init_args`) of config files, `upgrade_hyperparameters` those
of a checkpoint; `install` makes the modules of old class paths importable.
"""

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

CLASSES = {  # old class path → new class path
    "callbacks.WordNeighbours": "callbacks.WordNeighbors",
    "datamodules.PerPictureAffine": "datamodules.PerImageAffine",
    "datamodules.PerPictureElastic": "datamodules.PerImageElastic",
    "datamodules.augmentation.PerPictureAffine": "datamodules.PerImageAffine",
    "datamodules.augmentation.PerPictureElastic": "datamodules.PerImageElastic",
    "datamodules.pictures.PictureDataModule": "datamodules.images.in_memory.ImageDataModule",
    "modules.muon.Muon": "modules.optim.Muon",
    "modules.sharding.shard": "engine.distributed.sharding.shard",
    "strategies.DeepSpeed": "engine.distributed.DeepSpeed",
    "strategies.Sharded": "engine.distributed.ModelParallel",
}
ARGUMENTS: dict[str, dict[str, str]] = {  # new class path → {old argument: new argument}
    "datamodules.ContextWindows": {"drawn": "negatives_per_row", "most": "max_weight"},
}
VALUES: dict[str, dict[str, dict[Any, Any]]] = {  # new class path → {argument: {old: new}}
    "modules.nets.GPT": {"attention": {"written_out": "eager"}},
    "modules.nets.Transformer": {"norm": {"before": "pre", "after": "post"}},
}


def upgrade(value: Any) -> Any:
    """Return a config, or a part of one, with old class paths, arguments and values replaced."""
    if isinstance(value, str):
        return CLASSES.get(value, value)
    if isinstance(value, list):
        return [upgrade(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: upgrade(item) for key, item in value.items()}
    path = result.get("class_path") or result.get("_class_path")
    if not isinstance(path, str):
        return result
    arguments = result if "_class_path" in result else result.get("init_args")
    if isinstance(arguments, dict):
        for old, new in _entries(ARGUMENTS, path):
            if old in arguments:
                arguments[new] = arguments.pop(old)
        for name, values in _entries(VALUES, path):
            if isinstance(arguments.get(name), str):
                arguments[name] = values.get(arguments[name], arguments[name])
    return result


def renamed_attribute(module: str, name: str) -> Any:
    """Return the class that `module.name` is called now; a module's `__getattr__` calls this."""
    new = CLASSES.get(f"{module}.{name}")
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    owner, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(owner), attribute)


def _entries(table: dict[str, dict[str, Any]], path: str) -> list[tuple[str, Any]]:
    """Return a class's entries, also for the path of its own module: modules.nets.gpt.GPT."""
    package, _, name = path.rpartition(".")
    return [
        entry
        for known, entries in table.items()
        for known_package, _, known_name in [known.rpartition(".")]
        if known_name == name and f"{package}.".startswith(f"{known_package}.")
        for entry in entries.items()
    ]


def upgrade_hyperparameters(checkpoint: dict[str, Any], class_path: str = "") -> None:
    """Upgrade a checkpoint's hyper-parameters and the names of its callbacks, in place.

    Args:
        checkpoint: The content of a Lightning checkpoint.
        class_path: The task's class, for a checkpoint that does not name it.
    """
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        saved = checkpoint.get(key)
        if isinstance(saved, dict) and saved:
            named = "_class_path" in saved
            saved = upgrade(dict(saved) if named else {"_class_path": class_path, **saved})
            if not named:
                del saved["_class_path"]
            checkpoint[key] = saved
    states = checkpoint.get("callbacks")
    if isinstance(states, dict):
        checkpoint["callbacks"] = {_new_state_key(key): state for key, state in states.items()}


def _new_state_key(key: str) -> str:
    """Return the state key of a renamed callback; Lightning starts it with the class's name."""
    name, brace, rest = key.partition("{")
    for old, new in CLASSES.items():
        if old.startswith("callbacks.") and old.rpartition(".")[2] == name:
            return new.rpartition(".")[2] + brace + rest
    return key


class _OldModules(MetaPathFinder, Loader):
    """Import modules that exist only as a part of an old class path."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = any(class_path.rpartition(".")[0] == name for class_path in CLASSES)
        return ModuleSpec(name, self) if old else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = partial(renamed_attribute, module.__name__)  # type: ignore[method-assign]


def install() -> None:
    """Make old modules importable; called once, when this project is imported."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())  # last: a module of this name that exists comes first
