"""Turn what a user got wrong into one readable paragraph and exit code 2."""

import difflib
import importlib
import inspect
import os
import re
import traceback
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import yaml
from jsonargparse import ArgumentError

TYPE_NAMES = {
    "NoneType": "null",
    "collections.abc.Iterable": "list",
    "collections.abc.Sequence": "list",
    "str": "text",
}


def explain(
    error: ArgumentError | UnicodeDecodeError,
    known_keys: Iterable[str],
    arguments: Iterable[str] = (),
) -> str:
    """The cause inside jsonargparse's nested report, with the nearest valid name where one is near.

    Args:
        error: What the parser raised; or that a config is not UTF-8.
        known_keys: Every key that the subcommand accepts.
        arguments: The command line, to find the file that can't be read.
    """
    text = str(error)
    if "Problems parsing config" in text or isinstance(error, UnicodeDecodeError):
        return _broken_file(arguments) or re.sub(r"\s+", " ", text)
    if found := re.search(
        r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted"
        r"|Option '([\w.]+)' is not accepted\. Got value: Namespace\(class_path='([\w.]+)'",
        text,
    ):
        class_path, name = found[1] or found[4], found[2] or found[3]
        names = _argument_names(class_path)
        takes = f"It takes: {', '.join(names)}."
        return f"{class_path} has no argument {name!r}.{did_you_mean(name, names)} {takes}"
    if found := re.search(
        r"(?:does not accept option '|unrecognized arguments: (?:--)?|^Option ')([\w.]+)", text
    ):
        return f"unknown key {found[1]!r}.{did_you_mean(found[1], known_keys)}"
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        module, name = found.groups()
        near = did_you_mean(name, dir(importlib.import_module(module)))
        return f"there is no {name!r} in {module}.{near}"
    if found := re.search(r"Multiple subclasses with name (\w+)\. [^:]+: ([\w., ]+)\.", text):
        return f"several classes are called {found[1]!r}; write one of: {found[2]}."
    if found := re.search(r"No module named '([\w.]+)'", text):
        return f"there is no module named {found[1]!r}, as a class_path in the config asks for."
    if found := re.search(r"File does not exist: '([^']+)'", text):
        return f"there is no file {os.path.relpath(found[1])}."
    if told := _missing(text) or _wrong_type(text):
        return told
    return re.sub(r"\s+", " ", text.split("Given value type")[0])


def _missing(text: str) -> str | None:
    """What a class can't do without, where it was not given."""
    found = re.search(r"the following arguments are required: ([\w., ]+)", text)
    if not found:
        return None
    before, after = text[: found.start()], text[found.end() :]
    names = [name.split(".")[-1] for name in found[1].split(", ")]
    if not before and {"data", "model"}.issuperset(names):
        told = " and ".join(names)
        told += " is" if len(names) == 1 else " are"
        return f"{told} missing: name an experiment, as in --config configs/digits/cnn.yaml."
    keys = ".".join(re.findall(r'Parser key "([\w.]+)"', before))
    above = re.search(r"given class_path '([\w.]+)':\s*$", before)
    named = above or re.search(r"class_path='([\w.]+)'", after)
    if not keys or not named:
        return None
    flags = " ".join(f"--{keys}.{name} …" for name in names)
    return f"{named[1]} does not work without {found[1]}: give {flags}"


def _wrong_type(text: str) -> str | None:
    """`model.net.dropout: expected float, not 'abc'.`, where a value of another type was given.

    The report is a tree of types that would not do, each with what it lacks. Told is its first
    branch of leaves, `Expected a <type>` once or more, with the keys above it and the value below.
    """
    first = re.search(r"^( *)(?:- )?Expected an? ", text, re.MULTILINE)
    keys = re.findall(r'Parser key "([\w.]+)"', text[: first.start()]) if first else []
    given = re.search(r"(?:Got|Given) value: ([^\n]*)", text[first.start() :]) if first else None
    if not first or not keys or not given:
        return None
    lines = text[first.start() :].splitlines()
    branch = "\n".join(takewhile(lambda line: not line or line.startswith(first[1]), lines))
    value = given[1].split(". Got value: ")[0]
    if nested := re.fullmatch(r"NestedArg\(key='[^']*', val='?(.*?)'?\)", value):
        value = nested[1]
    wanted, anything = [], []  # any text is also tried as the path of a file, or of a class
    choices: list[str] = []
    for kind in re.findall(r"Expected an? (.+?)(?:\. Got value|$)", branch, re.M):
        if kind.startswith("dot import path"):
            anything.append("class path")
        elif kind.startswith("typing.Literal"):
            choices += kind[len("typing.Literal[") : -1].replace("'", "").split(", ")
        elif not kind.startswith("path but"):
            name = kind.removeprefix("<class '").removesuffix("'>")
            wanted.append(TYPE_NAMES.get(name, name))
    wanted += ["one of " + ", ".join(dict.fromkeys(choices))] if choices else []
    if set(wanted) <= {"null"}:
        wanted = anything + wanted
    told = " or ".join(dict.fromkeys(wanted))
    return None if told in ("", "null") else f"{'.'.join(keys)}: expected {told}, not {value!r}."


def root_cause(error: BaseException) -> BaseException:
    """The cause of what jsonargparse tells as a list of types, none of which would do."""
    while "Does not validate against any of the Union" in str(error):
        cause = error.__cause__ or error.__context__
        if cause is None:
            break
        error = cause
    return error


def _broken_file(arguments: Iterable[str]) -> str | None:
    for argument in arguments:
        path = Path(argument.removeprefix("--config="))
        if path.suffix in (".yaml", ".yml") and path.is_file():
            try:
                yaml.safe_load(path.read_bytes())
            except yaml.YAMLError as error:
                told = re.sub(r'\s*in "<[^"]*>",|\s+', " ", str(error))
                return f"{path} is no valid YAML: {told}".replace("  ", " ")
    return None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` Did you mean 'lr'?`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _argument_names(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def source_location(error: BaseException) -> str:
    """`file:line: ` of the innermost frame in this project, or in the user's own code.

    Nothing where the command line itself asked Lightning for what it refuses.
    """
    here = Path(__file__).parent.parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "<frozen" not in f.filename]
    if not own:
        return ""
    path = Path(own[-1].filename)
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return "" if shown == Path("cli/command_line.py") else f"{shown}:{own[-1].lineno}: "
