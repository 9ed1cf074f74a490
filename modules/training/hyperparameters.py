"""Store a task's constructor arguments as plain values, so that a checkpoint alone rebuilds it.

Under LightningCLI the hyper-parameters are the `model` section of the config: plain values that
load with `weights_only=True`. A task built in Python is described in the same form: a net becomes
`{"class_path": …, "init_args": …}`, read from its attributes of the arguments' names.
"""

import functools
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import lightning as L
from torch import nn

from engine.lightning_internals import built_by_cli


class _NotPlainError(Exception):
    """A value that a config file cannot express."""


def save_arguments(task: L.LightningModule) -> None:
    """Store the arguments of the calling `__init__` as plain values in `task.hparams`.

    Call it before the arguments change, like `save_hyperparameters()`. If the net does not keep its
    arguments as attributes of the same name, `load_from_checkpoint(path, net=…)` requires a net.
    """
    frame: Any = inspect.currentframe()
    names = inspect.getargvalues(frame.f_back).args[1:]  # without self
    arguments = {name: frame.f_back.f_locals[name] for name in names}
    if built_by_cli():
        task.save_hyperparameters(logger=False)
        _adapt_arguments(task.hparams.get("net"), arguments.get("net"))
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
    else:  # Lightning then calls the class directly, which takes objects instead of descriptions
        plain = {name: value for name, value in plain.items() if not _is_description(value)}
    task.save_hyperparameters(plain, logger=False)


def _adapt_arguments(description: Any, net: Any) -> None:
    """Remove `init_args` that a checkpoint must not hold, and add those that it needs.

    These are sizes linked from the data that the net does not accept, and what the net lists in
    `not_in_checkpoints`, such as initial weights, which the checkpoint replaces. What it lists in
    `kept_in_checkpoints`, such as the config of a pretrained model, is added.
    """
    if not isinstance(description, dict) or not isinstance(net, nn.Module):
        return
    accepted = inspect.signature(type(net)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    arguments = description.get("init_args", {})
    for name in (set(arguments) - set(accepted)) | set(getattr(net, "not_in_checkpoints", ())):
        arguments.pop(name, None)
    for name in getattr(net, "kept_in_checkpoints", ()):
        arguments[name] = _plain(getattr(net, name))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, nn.Module):
        return {"class_path": _path(type(value)), "init_args": _arguments_of(value)}
    if is_dataclass(value) and not isinstance(value, type):
        arguments = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"class_path": _path(type(value)), "init_args": arguments}
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
    if "<locals>" in cls.__qualname__:  # defined inside a function, so it cannot be imported
        raise _NotPlainError
    return f"{cls.__module__}.{cls.__qualname__}"


def _is_description(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value
