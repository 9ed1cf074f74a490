"""Evaluation mode for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode and restore the mode of each submodule afterwards.

    `module.train()` would also switch on submodules that were frozen in eval mode, such as the
    batch norms of a frozen backbone.
    """
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    if not any(training for _, training in modes):  # served models: switching costs 0.2 ms
        yield
        return
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training
