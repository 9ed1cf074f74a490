"""Compile a task's network, and run it eagerly where shapes vary."""

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from engine.distributed.sharding import fsdp_modules


def compile_net(task: L.LightningModule, *modules: nn.Module) -> None:
    """Compile `task.net` in place.

    Compiling for a CPU requires a C++ compiler. Without one the network stays eager, with a
    warning.

    Args:
        task: The task.
        modules: Further modules to compile unless the network is sharded.
    """
    compilers = (os.environ.get("CXX", ""), "g++", "clang++")
    on_cpu = task.trainer.strategy.root_device.type == "cpu"
    if on_cpu and not any(map(shutil.which, compilers)):
        rank_zero_warn(
            "compile: found no C++ compiler (g++ or clang++); training continues without "
            "compilation."
        )
        return
    net: Any = task.net
    if task.device_mesh is None:
        for module in (net, *modules):
            module.compile()
    else:  # the weights are gathered between the blocks
        for block in fsdp_modules(net)[:-1]:
            block.compile()


def eager_mode(net: Any) -> AbstractContextManager:
    """Run a compiled network eagerly, to avoid a compilation for each new shape."""
    for part in fsdp_modules(net):
        if getattr(part, "_compiled_call_impl", None):  # set by nn.Module.compile
            return torch.compiler.set_stance("force_eager")
    return nullcontext()
