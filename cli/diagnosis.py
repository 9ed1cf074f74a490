"""Explain what is wrong with a command line or config in one message."""

import difflib
import importlib
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from cli.signatures import catalog, find_class, import_path, parameters

if typing.TYPE_CHECKING:
    from cli.arguments import Setting

OWN_PACKAGES = ("callbacks", "datamodules", "engine", "modules", "preprocessing")
TYPE_NAMES = {type(None): "null", str: "text", Path: "path", Iterable: "list", Sequence: "list"}
PLAIN_TYPES = (bool, int, float, str, dict, list, tuple, set, bytes, type(None), Path, Tensor)


class Schema:
    """Keys of a command line with their types, for messages.

    Args:
        keys: Top-level key → its type. A key that builds an object has the class that any choice
            must derive from.
        groups: Top-level key → class whose arguments are nested below it.
        linked: Keys set from the data.
    """

    def __init__(
        self,
        keys: Mapping[str, Any],
        groups: Mapping[str, type] = types.MappingProxyType({}),
        linked: Iterable[str] = (),
    ) -> None:
        self.keys = dict(keys)
        self.groups = dict(groups)
        self.linked = set(linked)


def explain(error: Exception, settings: Sequence["Setting"], schema: Schema) -> str:
    """What is wrong with the settings; the parser's own message where none of the checks fails.

    Args:
        error: What the parser raised.
        settings: All settings in their order.
        schema: The keys that the parser accepts.
    """
    checker = _Checker(schema)
    for setting in settings:
        if message := checker.check(setting):
            return message
    return checker.missing() or re.sub(r"\s+", " ", str(error)).strip()


class _Checker:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.classes: dict[str, Any] = dict(schema.groups)  # key → class whose arguments are below
        self.given: set[str] = set()

    def check(self, setting: "Setting") -> str | None:
        key = setting.key
        self.given.add(key)
        is_file = setting.source and not setting.source.startswith("--")
        where = f"{setting.source}: " if is_file else ""
        if key in self.schema.keys:
            message = self._check_value(key, self.schema.keys[key], setting)
            return message and where + message
        owner = self._owner(key)
        if typing.get_origin(self.schema.keys.get(key.partition(".")[0])) is dict:
            return None
        if owner is None:
            message = self._unknown(key, setting)
            return where + message
        name, _, below = key.removeprefix(owner + ".").partition(".")
        arguments = parameters(self.classes[owner])
        if name not in arguments:
            return where + self._no_argument(owner, name)
        annotation = arguments[name].annotation
        if not below:
            message = self._check_value(f"{owner}.{name}", annotation, setting)
            return message and where + message
        if _class_types(annotation) and not _accepts(annotation, {"x": 1}):
            return where + self._no_class(f"{owner}.{name}", below, _class_types(annotation))
        return None

    def _owner(self, key: str) -> str | None:
        owners = [k for k in self.classes if key.startswith(k + ".") and self.classes[k]]
        return max(owners, key=len, default=None)

    def _unknown(self, key: str, setting: "Setting") -> str:
        root, _, below = key.partition(".")
        if root in self.schema.keys and below:
            if not _class_types(self.schema.keys[root]):
                return f"{root} has no keys below it, but {key} is set."
            if setting.source.startswith("--"):
                return f"{key}: choose an experiment first, as in --config configs/digits/mlp.yaml."
            return (
                f"this config sets {key} but does not choose a {root}: it is an overlay. Put an "
                "experiment before it, as in --config configs/digits/mlp.yaml --config "
                f"{setting.source}."
            )
        if root in self.schema.groups:
            return f"{root}: expected keys with values, as in max_epochs: 3, not {setting.value!r}."
        same = [known for known in self._known() if known.rpartition(".")[2] == key]
        hint = f" Did you mean {same[0]!r}?" if same else did_you_mean(key, self._known())
        return f"unknown key {key!r}.{hint}"

    def _known(self) -> list[str]:
        nested = [f"{key}.{name}" for key, cls in self.classes.items() for name in parameters(cls)]
        return [*self.schema.keys, *nested, *(["model.optimizer.lr"] * ("model" in self.classes))]

    def _no_argument(self, owner: str, name: str) -> str:
        names = [*parameters(self.classes[owner])]
        if owner in self.schema.groups:
            known = [f"{owner}.{known}" for known in names]
            return f"unknown key '{owner}.{name}'.{did_you_mean(f'{owner}.{name}', known)}"
        path = _path(self.classes[owner])
        hint = did_you_mean(name, names)
        return f"{owner}: {path} has no argument {name!r}.{hint} It takes: {', '.join(names)}."

    @staticmethod
    def _no_class(key: str, below: str, kinds: Sequence[type]) -> str:
        example = {"optimizer": "AdamW", "lr_scheduler": "modules.optim.WarmupCosine"}
        choice = example.get(key.rpartition(".")[2], f"{kinds[0].__name__} subclass")
        return (
            f"{key}.{below} is set, but no class is chosen for {key}: put --{key} {choice} before "
            "it."
        )

    def _check_value(self, key: str, annotation: Any, setting: "Setting") -> str | None:
        value = setting.value
        kinds = _class_types(annotation)
        if kinds and isinstance(value, str):
            message, cls = _import(key, value, kinds)
            if message is None and cls is not None:
                self._choose(key, cls)
                return None
            if _accepts(annotation, value):
                return None
            if "." not in value and message is not None:
                hint = did_you_mean(value, catalog(kinds[0]))
                return f"{key}: expected {describe_type(annotation)}, not {value!r}.{hint}"
            return message
        if kinds and isinstance(value, list):
            for item in value:
                if message := self._check_item(key, kinds, item):
                    return message
            return None
        if value is None and kinds:
            self._choose(key, None)
        if _accepts(annotation, value) or (setting.text and _accepts(annotation, setting.text)):
            return None
        hint = _hint(annotation, setting)
        return f"{key}: expected {describe_type(annotation)}, not {_shown(setting)}.{hint}"

    def _choose(self, key: str, cls: Any) -> None:
        if self.classes.get(key) is not cls:
            self.given = {name for name in self.given if not name.startswith(key + ".")}
        self.classes = {k: c for k, c in self.classes.items() if not k.startswith(key + ".")}
        self.classes[key] = cls

    def _check_item(self, key: str, kinds: Sequence[type], item: Any) -> str | None:
        """Check one object of a list, such as a callback."""
        path = item.get("class_path") if isinstance(item, dict) else item
        if not isinstance(path, str):
            return f"{key}: expected class paths, not {item!r}."
        message, cls = _import(key, path, kinds)
        arguments = item.get("init_args") or {} if isinstance(item, dict) else {}
        if message or cls is None:
            return message
        names = parameters(cls)
        for name, value in arguments.items():
            if name not in names:
                return (
                    f"{key}: {_path(cls)} has no argument {name!r}.{did_you_mean(name, names)} "
                    f"It takes: {', '.join(names)}."
                )
            annotation = names[name].annotation
            if not _class_types(annotation) and not _accepts(annotation, value):
                expected = describe_type(annotation)
                return f"{key}: {_path(cls)}: {name}: expected {expected}, not {value!r}."
        return None

    def missing(self) -> str | None:
        """Arguments without a default that are not set."""
        absent = [
            key for key in ("data", "model") if key in self.schema.keys and key not in self.given
        ]
        if absent:
            verb = "is" if len(absent) == 1 else "are"
            return (
                f"{' and '.join(absent)} {verb} missing: choose an experiment, as in --config "
                "configs/digits/cnn.yaml."
            )
        for key, cls in self.classes.items():
            if key in self.schema.groups or cls is None:
                continue
            required = [n for n, p in parameters(cls).items() if p.default is p.empty]
            if key.rpartition(".")[2] in ("optimizer", "lr_scheduler"):
                required = required[1:]  # the first is given by the task
            names = [n for n in required if f"{key}.{n}" not in self.given | self.schema.linked]
            if names:
                flags = " ".join(f"--{key}.{name} VALUE" for name in names)
                return f"{_path(cls)} requires {' and '.join(map(repr, names))}: pass {flags}."
        return None


def _import(key: str, path: str, kinds: Sequence[type]) -> tuple[str | None, Any]:
    """The class with this path, or why there is none."""
    known = catalog(kinds[0])
    if path in known:
        return f"{key}: several classes are named {path!r}; write {known[path]}.", None
    if "." not in path:
        for kind in kinds:
            if cls := find_class(path, kind):
                return None, cls
        return f"{key}: expected class path, not {path!r}.{did_you_mean(path, known)}", None
    module, _, name = path.rpartition(".")
    try:
        return None, import_path(path)
    except AttributeError:
        names = dir(importlib.import_module(module))
        return f"{key}: there is no {name!r} in {module}.{did_you_mean(name, names)}", None
    except ModuleNotFoundError as error:
        hint = did_you_mean(path, known.values())
        return f"{key}: cannot import {path}: there is no module named {error.name!r}.{hint}", None
    except ImportError as error:
        return f"{key}: cannot import {path}: {error}.", None
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        return f"{key}: cannot import {path}: {where}: {error.msg}.", None


def _path(cls: Any) -> str:
    name = getattr(cls, "__name__", str(cls))
    for path in catalog(cls).values():
        if path.rpartition(".")[2] == name:
            return path
    return f"{cls.__module__}.{name}"


def _class_types(annotation: Any) -> list[type]:
    """Classes that a value of this type may be an instance of, other than plain values."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return []
    if origin is not None:
        if isinstance(origin, type) and issubclass(origin, Callable):  # type: ignore[arg-type]
            return _class_types(arguments[-1]) if arguments else []
        return [kind for argument in arguments for kind in _class_types(argument)]
    if not isinstance(annotation, type) or annotation in (object, Iterable, Sequence):
        return []
    return [] if issubclass(annotation, PLAIN_TYPES) else [annotation]


def _accepts(annotation: Any, value: Any) -> bool:
    if annotation in (Any, typing.NoReturn) or annotation is getattr(annotation, "empty", ...):
        return True
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=annotation)
    except ValueError:  # a type that jsonargparse does not check
        return True
    try:
        parser.parse_object({"value": value})
    except (ArgumentError, SyntaxError):  # the latter of a user's file
        return False
    return True


def describe_type(annotation: Any) -> str:
    """`int or null` for `int | None`."""
    return " or ".join(dict.fromkeys(_descriptions(annotation)))


def _descriptions(annotation: Any) -> Iterator[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = [
            c for a in arguments if typing.get_origin(a) is Literal for c in typing.get_args(a)
        ]
        for argument in arguments:
            if typing.get_origin(argument) is not Literal:
                yield from _descriptions(argument)
        if choices:
            yield "one of " + ", ".join(dict.fromkeys(map(str, choices)))
    elif origin is Literal:
        yield "one of " + ", ".join(map(str, arguments))
    elif _class_types(annotation) and not (
        isinstance(origin, type) and issubclass(origin, Iterable)
    ):
        yield "class path"
    elif origin is not None:
        inner = " or ".join(describe_type(a) for a in arguments if a is not ...)
        yield f"{TYPE_NAMES.get(origin, getattr(origin, '__name__', str(origin)))} of {inner}"
    else:
        yield TYPE_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _shown(setting: "Setting") -> str:
    return repr(setting.value if setting.text is None else setting.text)


def _hint(annotation: Any, setting: "Setting") -> str:
    if isinstance(setting.value, list) and any(isinstance(v, bool) for v in setting.value):
        return " YAML reads yes, no, on and off as true and false: quote such words."
    text = setting.text or (setting.value if isinstance(setting.value, str) else "")
    if "list" in describe_type(annotation) and "," in text and not text.startswith("["):
        return f" Write it as [{text}]."
    return ""


def root_cause(error: BaseException) -> BaseException:
    """The first cause that was not raised by jsonargparse, which wraps errors of constructors."""
    found = error
    while raised_by("jsonargparse", found):
        cause = found.__cause__ or found.__context__
        if cause is None:
            return error
        found = cause
    return found


def raised_by(package: str, error: BaseException) -> bool:
    """Whether a package's own code raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and package in Path(frames[-1].filename).parts


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'lr'?`, or nothing where no name is similar."""
    similar = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" Did you mean {similar[0]!r}?" if similar else ""


def source_location(error: BaseException) -> str:
    """`file:line: ` of the innermost frame in this project or in the user's own code.

    Empty for an error that a `raise` of this project describes, and if only the command line called
    the library that raised it.
    """
    project = Path(__file__).parent.parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "<frozen" not in f.filename]
    if not own:
        return ""
    path = Path(own[-1].filename)
    shown = path.relative_to(project) if path.is_relative_to(project) else path
    described = frames[-1] is own[-1] and str(own[-1].line).startswith("raise ")
    if shown.parts[0] == "cli" or (described and shown.parts[0] in OWN_PACKAGES):
        return ""
    return f"{shown}:{own[-1].lineno}: "
