"""Which learning rate to begin with: the loss while the rate grows from tiny to absurd."""

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch import callbacks
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from rich.console import Console

from engine.run.figures import INK, publish

SMOOTHING = 0.98  # β of Lightning's running mean of the loss


class LearningRateFinder(callbacks.LearningRateFinder):
    """Lightning's LearningRateFinder, for rates that stand in an optimizer, and as a picture.

    Before the first step it trains for some steps while the rate grows, puts the weights back, and
    takes the rate at which the loss fell the fastest (Smith 2017, "Cyclical learning rates"). The
    parent sets an attribute `lr` of the task; ours keep the rate in the optimizer, so it is set
    there and in the schedule, whose peak it becomes. Draws `figures/learning_rate.png`.

    "Fastest" is meant as the picture shows it, against the logarithm of the rate. The parent takes
    the slope against the rate itself, which is steep where the rates are tiny, and shows the first
    losses too small by up to a half: it takes one step too many off its running mean.

    A run that goes on keeps the rate that was found when it began, as its checkpoint has it.

    Args:
        min_lr: Rate to begin with, above 0.
        max_lr: Rate to end with.
        num_training_steps: Rates to try.
        mode: `exponential` or `linear` growth of the rate.
        early_stop_threshold: Stop once the smoothed loss is so many times its best.
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 1.0,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        super().__init__(
            min_lr, max_lr, num_training_steps, mode, early_stop_threshold, update_attr=False
        )
        self._searched = False  # when the run began

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.ckpt_path is None:
            super().on_fit_start(trainer, pl_module)
            trainer.ckpt_path = None  # not that of the search, whose weights are put back
            self._searched = True
        elif not self._searched:
            raise searched_too_late(self, "learning rate")

    def state_dict(self) -> dict[str, Any]:
        return {"searched": self._searched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._searched = state_dict["searched"]

    def lr_find(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epochs = trainer.fit_loop.max_epochs
        trainer.fit_loop.max_epochs = -1  # the search has its own end
        try:
            super().lr_find(trainer, pl_module)
        finally:
            trainer.fit_loop.max_epochs = epochs
        if self.optimal_lr is None:  # fast_dev_run
            return
        found = self.optimal_lr.results
        number = min(len(found["lr"]), len(found["loss"]))  # a search that stopped lacks the last
        rates = np.array(found["lr"][:number])
        losses = without_bias(np.array(found["loss"][:number]), trainer.global_step)
        rate = steepest(rates, losses)
        publish(trainer, "learning_rate", lambda: curve_figure(rates, losses, rate))
        if rate is None:
            rank_zero_warn(
                "LearningRateFinder keeps the config's rate: the loss fell too little to tell "
                "which is best. Try more num_training_steps or a larger max_lr."
            )
            return
        set_peak(trainer, rate)
        if trainer.is_global_zero:
            Console().print(f"learning rate: {rate:.2g}, where the loss fell the fastest")


def searched_too_late(finder: L.Callback, what: str) -> MisconfigurationException:
    """What a finder raises that joins a run which was begun without it."""
    return MisconfigurationException(
        f"{type(finder).__name__}: a run that goes on keeps its {what}. Leave it out, or begin a "
        "new run with these weights by --init_from."
    )


def set_peak(trainer: L.Trainer, rate: float) -> None:
    """Scale all rates, those under way and those of schedules, so that the highest is `rate`."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    factor = rate / max(group.get("initial_lr", group["lr"]) for group in groups)
    for group in groups:
        for name in {"lr", "initial_lr"} & set(group):
            group[name] *= factor
    for config in trainer.lr_scheduler_configs:
        if hasattr(config.scheduler, "base_lrs"):
            config.scheduler.base_lrs = [base * factor for base in config.scheduler.base_lrs]


def without_bias(losses: np.ndarray, steps_before: int) -> np.ndarray:
    """The running means as they should be: Lightning divides the t-th by 1 - βᵗ⁺¹, not 1 - βᵗ."""
    t = np.arange(1, len(losses) + 1)
    return losses * (1 - SMOOTHING ** (steps_before + t + 1)) / (1 - SMOOTHING**t)


def steepest(rates: np.ndarray, losses: np.ndarray, skip: int = 10) -> float | None:
    """The rate at which the loss falls the fastest over the logarithm of the rate, if it does fall.

    Args:
        rates: Rates tried, ascending.
        losses: Their smoothed losses.
        skip: The first so many can't be trusted: they are the mean of too few batches.
    """
    trusted = np.isfinite(losses) & (np.arange(len(losses)) >= skip)
    if trusted.sum() < 2:
        return None
    slopes = np.gradient(losses[trusted], np.log(rates[trusted]))
    return float(rates[trusted][slopes.argmin()]) if slopes.min() < 0 else None


def curve_figure(rates: np.ndarray, losses: np.ndarray, suggestion: float | None) -> Figure:
    """Draws the smoothed loss against the rate, and marks the suggestion."""
    figure = Figure(figsize=(6, 3.6))
    axes = figure.add_subplot()
    axes.plot(rates, losses)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.grid()
    if suggestion is not None:
        at = np.abs(rates - suggestion).argmin()
        axes.plot(rates[at], losses[at], "o", markersize=9, fillstyle="none", color=INK)
        axes.set_title(f"The loss falls the fastest at {suggestion:.2g}")
    return figure
