"""Classes that a config names and the arguments that they take."""

import importlib
import inspect
import typing
from typing import Any


def import_path(path: str) -> Any:
    """Import the object at a dotted path.

    Raises:
        ImportError: If a module does not exist, or cannot be imported.
        AttributeError: If the module has no such attribute.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def find_class(path: str | None, base: type) -> type | None:
    """The class with this path or bare name; None if there is none, or it is not a class."""
    if path is None:
        return None
    if "." not in path:
        path = catalog(base).get(path, path)
    if "." not in path:
        found = [cls for cls in _subclasses(base) if cls.__name__ == path]
        return found[0] if len(found) == 1 else None
    try:
        value = import_path(path)
    except (ImportError, AttributeError, SyntaxError):  # reported when the config is parsed
        return None
    return value if isinstance(value, type) else None


def _subclasses(base: type) -> set[type]:
    direct: list[type] = base.__subclasses__()
    return {*direct, *(cls for sub in direct for cls in _subclasses(sub))}


def parameters(owner: Any) -> dict[str, inspect.Parameter]:
    """Arguments of a class or function by name; those behind `**kwargs` are its base class's."""
    if owner is None:
        return {}
    found: dict[str, inspect.Parameter] = {}
    for function in _initializers(owner):
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            break
        hints = _annotations(function)
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        for name, parameter in signature.parameters.items():
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if named and name != "self":
                annotation = hints.get(name, parameter.annotation)
                found.setdefault(name, parameter.replace(annotation=annotation))
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return found


def _initializers(owner: Any) -> list[Any]:
    if not isinstance(owner, type):
        return [owner]
    return [cls.__dict__["__init__"] for cls in owner.__mro__[:-1] if "__init__" in cls.__dict__]


def _annotations(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):  # names that exist for type checkers only
        return {}


def catalog(base: type) -> dict[str, str]:
    """Classes of this project that derive from a base class: name → class path for configs."""
    import callbacks
    import datamodules
    import modules.adapters
    import modules.nets
    import modules.optim

    packages = (modules, modules.nets, modules.optim, modules.adapters, datamodules, callbacks)
    found = {}
    for package in packages:
        for name in getattr(package, "__all__", dir(package)):
            value = getattr(package, name, None)
            if isinstance(value, type) and isinstance(base, type) and issubclass(value, base):
                found[name] = f"{package.__name__}.{name}"
    return found
