"""Freeze the parameters whose names match patterns, for the whole training."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import lightning as L
from torch import nn

from engine.errors import UserError


class Freeze(L.Callback):
    """Do not train the parameters whose names match a pattern.

    A module whose parameters are all frozen computes as in evaluation: its batch norms keep their
    statistics, and its dropout is off.

    Args:
        patterns: Patterns of the names of the task's parameters, in which `*` stands for any
            characters: `*.embeddings.*`, `net.blocks.[0-3].*`.

    Raises:
        UserError: At the start of fit, if a pattern matches no parameter or all are frozen.
    """

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        parameters = dict(pl_module.named_parameters())
        for pattern in self.patterns:
            matching = [name for name in parameters if fnmatchcase(name, pattern)]
            if not matching:
                raise UserError(
                    f"trainer.callbacks: Freeze: no parameter matches {pattern!r}. The names are "
                    f"those of the task, such as {next(iter(parameters))}."
                )
            for name in matching:
                parameters[name].requires_grad_(False)
        if not any(parameter.requires_grad for parameter in parameters.values()):
            raise UserError(
                f"trainer.callbacks: Freeze: {', '.join(self.patterns)} match all parameters, and "
                "nothing is left to train."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for module in frozen_modules(pl_module):
            module.eval()


def frozen_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the largest modules that have parameters, all of them frozen."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
    elif parameters:
        for child in module.children():
            yield from frozen_modules(child)
