"""Old public names: checkpoints, configs and users' code that contain them keep working.

One table for class paths, one for constructor arguments and one for values. `upgrade` rewrites the
description of a class (`class_path` and `init_args`) from a config file or a checkpoint; `install`
makes the modules of old class paths importable.
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
    "datamodules.PerPictureAffine": "datamodules.PerImageAffine",
    "datamodules.PerPictureElastic": "datamodules.PerImageElastic",
    "datamodules.augmentation.PerPictureAffine": "datamodules.PerImageAffine",
    "datamodules.augmentation.PerPictureElastic": "datamodules.PerImageElastic",
    "datamodules.pictures.PictureDataModule": "datamodules.images.in_memory.ImageDataModule",
    "modules.muon.Muon": "modules.optim.Muon",
    "modules.sharding.shard": "engine.distributed.sharding.shard",
    "strategies.DeepSpeed": "engine.distributed.DeepSpeed",
    "strategies.Sharded": "engine.distributed.Sharded",
}
ARGUMENTS: dict[str, dict[str, str]] = {}  # new class path → {old argument: new argument}
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
        for old, new in ARGUMENTS.get(path, {}).items():
            if old in arguments:
                arguments[new] = arguments.pop(old)
        for name, values in VALUES.get(path, {}).items():
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
