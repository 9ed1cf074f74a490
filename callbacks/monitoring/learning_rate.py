"""Log the learning rate of each logged step."""

import torch
from lightning import Callback, LightningModule, Trainer

from engine.run.step_metrics import log_step, step_is_logged


class LearningRate(Callback):
    """Log the learning rate of the current step every `trainer.log_every_n_steps`.

    | name | meaning |
    | --- | --- |
    | `optimizer/learning_rate` | learning rate of all parameters |
    | `optimizer/learning_rate/<n>` | that of parameter group n, if they differ |

    Groups are numbered over all optimizers from 0. Lightning's LearningRateMonitor logs one metric
    per group even if all are equal, and refuses to run without a logger (`fast_dev_run`).
    """

    def __init__(self) -> None:
        self._names: dict[int, list[str]] = {}  # id of the optimizer → name of each group

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        # A warm-up starts all groups at 0, so compare their initial learning rates.
        rates = {float(group.get("initial_lr", group["lr"])) for group in groups}
        shared = len(rates) == 1 and len(trainer.optimizers) == 1
        name = "optimizer/learning_rate"
        self._names, first = {}, 0
        for optimizer in trainer.optimizers:
            numbers = range(first, first + len(optimizer.param_groups))
            self._names[id(optimizer)] = [name] if shared else [f"{name}/{n}" for n in numbers]
            first = numbers.stop

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if step_is_logged(trainer):
            named = zip(self._names.get(id(optimizer), []), optimizer.param_groups, strict=False)
            log_step(trainer, {name: float(group["lr"]) for name, group in named})
