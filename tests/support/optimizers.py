"""Short fits that record the learning rate of each step."""

import lightning as L

from datamodules import Digits
from modules import Classifier
from modules.nets import MLP


class Rates(L.Callback):
    """Record the learning rate of each step and the interval of the schedule."""

    def on_train_start(self, trainer, pl_module) -> None:
        self.rates, self.optimizer = [], trainer.optimizers[0]
        self.intervals = [config.interval for config in trainer.lr_scheduler_configs]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def fit(optimizer=None, lr_scheduler=None, callbacks=(), **arguments) -> Rates:
    """Train an MLP on Digits and return the recorded rates.

    Args:
        optimizer: Factory of the optimizer, as in a config.
        lr_scheduler: Factory of the schedule.
        callbacks: Further callbacks.
        arguments: Further arguments of the Trainer.
    """
    rates = Rates()
    net = MLP(image_size=8, hidden_sizes=[4])
    task = Classifier(net, optimizer=optimizer, lr_scheduler=lr_scheduler)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[rates, *callbacks],
        **{"max_epochs": 2, "limit_train_batches": 5, "limit_val_batches": 1} | arguments,
    )
    trainer.fit(task, Digits())
    rates.rate_after = rates.optimizer.param_groups[0]["lr"]
    return rates
