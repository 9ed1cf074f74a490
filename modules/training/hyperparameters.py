"""What a checkpoint needs so that a task can be rebuilt with no YAML at hand.

Under LightningCLI the hyper-parameters are the task's part of the config: plain values that load
with `weights_only=True`. A task built in plain Python gets the same form here: a net becomes
`{"class_path": …, "init_args": …}`, read off the attributes that carry its arguments' names.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import nn

from engine.lightning_internals import built_by_cli


class _NotPlainError(Exception):
    """A value that no config file could state."""


def save_arguments(task: L.LightningModule, arguments: Mapping[str, Any]) -> None:
    """Store a task's constructor arguments as plain values in its `hparams`.

    A net that does not keep its arguments as attributes of the same name can't be described; then
    `load_from_checkpoint(path, net=…)` has to be given one, as Lightning does it.

    Args:
        task: The task under construction.
        arguments: Its constructor's arguments by name.
    """
    if built_by_cli():  # LightningCLI is building, and hands over
        task.save_hyperparameters(logger=False)
        _drop_what_the_net_does_not_take(task.hparams.get("net"), arguments.get("net"))
        return
    plain: dict[str, Any] = {}
    complete = True
    for name, value in arguments.items():
        try:
            plain[name] = _plain(value)
        except _NotPlainError:
            complete = complete and name != "net"
    if complete:
        plain["_class_path"] = _path(type(task))
        plain["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    else:  # Lightning then calls the class itself, which takes objects and not their descriptions
        plain = {name: value for name, value in plain.items() if not _is_description(value)}
    task.save_hyperparameters(plain, logger=False)


def _drop_what_the_net_does_not_take(description: Any, net: Any) -> None:
    """Sizes linked from the data stand in the config of a net that never asked for them, too.

    And a checkpoint replaces what a net began with: it names such arguments `not_in_checkpoints`.
    """
    if not isinstance(description, dict) or not isinstance(net, nn.Module):
        return
    taken = inspect.signature(type(net)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    dropped = set(description.get("init_args", {})) - set(taken)
    for name in dropped | set(getattr(net, "not_in_checkpoints", ())):
        description.get("init_args", {}).pop(name, None)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, nn.Module):
        return {"class_path": _path(type(value)), "init_args": _arguments_of(value)}
    if isinstance(value, functools.partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": _path(value.func), "init_args": _plain(value.keywords)}
    if isinstance(value, type):
        return {"class_path": _path(value)}
    raise _NotPlainError


def _arguments_of(net: nn.Module) -> dict[str, Any]:
    arguments = {}
    for name, parameter in inspect.signature(type(net)).parameters.items():
        if name in getattr(net, "not_in_checkpoints", ()):
            continue
        value = getattr(net, name, _NotPlainError)
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic or value is _NotPlainError or isinstance(value, nn.Module):
            raise _NotPlainError
        arguments[name] = _plain(value)
    return arguments


def _path(cls: type) -> str:
    if "<locals>" in cls.__qualname__:  # made inside a function: no import finds it again
        raise _NotPlainError
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_description(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value
