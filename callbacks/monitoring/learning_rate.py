"""The learning rate of each logged step."""

import torch
from lightning import Callback, LightningModule, Trainer

from engine.run.step_metrics import log_step, step_is_logged


class LearningRate(Callback):
    """Logs the rate with which a step is taken, every `trainer.log_every_n_steps`.

    | name | what it is |
    | --- | --- |
    | `optimizer/learning_rate` | the one rate of all parameters |
    | `optimizer/learning_rate/<n>` | that of the n-th parameter group, where they differ |

    Groups are counted over all optimizers from zero. (Lightning's LearningRateMonitor has a name
    for each group, also where they all say the same, and refuses a dry run.)
    """

    def __init__(self) -> None:
        self._names: dict[int, list[str | None]] = {}  # optimizer → a name for each of its groups

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        # A schedule may begin at zero: the rates that it starts from tell groups apart.
        rates = {float(group.get("initial_lr", group["lr"])) for group in groups}
        one = len(rates) == 1 and len(trainer.optimizers) == 1
        self._names, number = {}, 0
        for optimizer in trainer.optimizers:
            names: list[str | None] = []
            for _ in optimizer.param_groups:
                several = f"optimizer/learning_rate/{number}"
                names.append(several if not one else None if number else "optimizer/learning_rate")
                number += 1
            self._names[id(optimizer)] = names

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if not step_is_logged(trainer):
            return
        names = self._names.get(id(optimizer), [])
        found = zip(names, optimizer.param_groups, strict=False)
        log_step(trainer, {name: float(group["lr"]) for name, group in found if name})
