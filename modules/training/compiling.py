"""Compiling a task's net, and leaving the compiled one aside where shapes vary."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from engine.distributed.sharding import fsdp_modules


def compile_net(task: L.LightningModule, *beside: nn.Module) -> None:
    """What a task does in `setup` if it was told to: compile its `net`, in place.

    For a CPU that takes a C++ compiler; without one the net stays as it is, and a warning says so.

    Args:
        task: Whose net it is.
        beside: What else to compile where the net is compiled in one piece.
    """
    compilers = (os.environ.get("CXX", ""), "g++", "clang++")
    on_cpu = task.trainer.strategy.root_device.type == "cpu"
    if on_cpu and not any(map(shutil.which, compilers)):
        rank_zero_warn("compile: no C++ compiler here (g++ or clang++): slower, same result.")
        return
    net: Any = task.net
    sharded = task.device_mesh is not None
    for part in fsdp_modules(net)[:-1] if sharded else []:  # between them weights are gathered
        part.compile()
    for part in () if sharded else (net, *beside):
        part.compile()


def as_written(net: Any) -> AbstractContextManager:
    """Within it the net runs as it is written: it would be compiled anew for each new shape."""
    if any(getattr(part, "_compiled_call_impl", None) for part in fsdp_modules(net)):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
