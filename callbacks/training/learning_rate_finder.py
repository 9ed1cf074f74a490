"""Find an initial learning rate by a range test (Smith 2017, arXiv:1506.01186)."""

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch import callbacks
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from rich.console import Console

from engine.errors import UserError
from engine.run.figures import INK, publish

SMOOTHING = 0.98  # β of Lightning's exponential moving average of the loss


class LearningRateFinder(callbacks.LearningRateFinder):
    """Lightning's LearningRateFinder for tasks whose learning rate is set in the optimizer.

    Before the first step, the network is trained for some steps while the learning rate grows, the
    weights are restored, and the learning rate at which the loss fell fastest becomes the peak of
    the optimizer and its schedule. Lightning's sets an attribute `lr` of the task instead. Draws
    `figures/learning_rate.png`.

    "Fastest" means the slope over the logarithm of the learning rate. Lightning takes the slope
    over the learning rate itself, which favors tiny ones, and corrects the bias of the first
    averages with the wrong exponent (up to a factor of 2).

    A resumed run keeps its learning rate.

    Args:
        min_lr: First learning rate, above 0.
        max_lr: Last learning rate.
        num_training_steps: Number of learning rates to try.
        mode: `exponential` or `linear` growth.
        early_stop_threshold: Stop when the smoothed loss exceeds its minimum by this factor.
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
        self._searched = False  # at the start of the run

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.ckpt_path is None:
            super().on_fit_start(trainer, pl_module)
            trainer.ckpt_path = None  # that of the search, whose weights are restored
            self._searched = True
        elif not self._searched:
            raise no_search_on_resume(self, "learning rate")

    def state_dict(self) -> dict[str, Any]:
        return {"searched": self._searched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._searched = state_dict["searched"]

    def lr_find(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        max_epochs = trainer.fit_loop.max_epochs
        trainer.fit_loop.max_epochs = -1  # the search ends by its number of steps
        try:
            super().lr_find(trainer, pl_module)
        finally:
            trainer.fit_loop.max_epochs = max_epochs
        if self.optimal_lr is None:  # fast_dev_run
            return
        results = self.optimal_lr.results
        number = min(len(results["lr"]), len(results["loss"]))  # differ after early stopping
        rates = np.array(results["lr"][:number])
        losses = correct_bias(np.array(results["loss"][:number]), trainer.global_step)
        rate = steepest_descent(rates, losses)
        publish(trainer, "learning_rate", lambda: range_test_figure(rates, losses, rate))
        if rate is None:
            rank_zero_warn(
                "LearningRateFinder: the loss did not fall, so the learning rate of the config is "
                "used. Increase num_training_steps or max_lr."
            )
            return
        set_peak_learning_rate(trainer, rate)
        if trainer.is_global_zero:
            Console().print(f"learning rate: {rate:.2g} (steepest descent of the loss)")


def no_search_on_resume(finder: L.Callback, quantity: str) -> UserError:
    """Return the error of a finder that is added to a run started without it."""
    return UserError(
        f"trainer.callbacks: {type(finder).__name__} cannot be added to a resumed run, which keeps "
        f"its {quantity}. Remove it, or use --init_from to start a new run from its weights."
    )


def set_peak_learning_rate(trainer: L.Trainer, rate: float) -> None:
    """Scale current and scheduled learning rates of all groups so that the highest is `rate`."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    factor = rate / max(group.get("initial_lr", group["lr"]) for group in groups)
    for group in groups:
        for name in {"lr", "initial_lr"} & set(group):
            group[name] *= factor
    for config in trainer.lr_scheduler_configs:
        if hasattr(config.scheduler, "base_lrs"):
            config.scheduler.base_lrs = [base * factor for base in config.scheduler.base_lrs]


def correct_bias(losses: np.ndarray, steps_before: int) -> np.ndarray:
    """Divide the t-th moving average by 1 − βᵗ; Lightning divides it by 1 − βᵗ⁺¹."""
    t = np.arange(1, len(losses) + 1)
    return losses * (1 - SMOOTHING ** (steps_before + t + 1)) / (1 - SMOOTHING**t)


def steepest_descent(rates: np.ndarray, losses: np.ndarray, skip: int = 10) -> float | None:
    """Return the learning rate with the steepest descent over its logarithm; None if there is none.

    Args:
        rates: Learning rates, ascending.
        losses: Smoothed losses.
        skip: Number of first losses to ignore; they average too few batches.
    """
    valid = np.isfinite(losses) & (np.arange(len(losses)) >= skip)
    if valid.sum() < 2:
        return None
    slopes = np.gradient(losses[valid], np.log(rates[valid]))
    return float(rates[valid][slopes.argmin()]) if slopes.min() < 0 else None


def range_test_figure(rates: np.ndarray, losses: np.ndarray, chosen: float | None) -> Figure:
    """Draw the smoothed loss against the learning rate, and mark the chosen one."""
    figure = Figure(figsize=(6, 3.6))
    axes = figure.add_subplot()
    axes.plot(rates, losses)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss (smoothed)")
    axes.grid()
    if chosen is not None:
        index = np.abs(rates - chosen).argmin()
        axes.plot(rates[index], losses[index], "o", markersize=9, fillstyle="none", color=INK)
        axes.set_title(f"Steepest descent at learning rate {chosen:.2g}")
    return figure
