"""Averaged weights that are also the ones tested: Lightning's callbacks lose them after fit."""

from typing import Any, Literal

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.checkpoint.writing import Checkpoints, find_checkpoints

AVERAGE = "average.ckpt"


class StochasticWeightAveraging(callbacks.StochasticWeightAveraging):
    """Lightning's StochasticWeightAveraging (Izmailov et al. 2018), with a checkpoint of its own.

    The parent puts the average into the net as the very last thing, after the last checkpoint was
    saved. Here it is saved as `checkpoints/average.ckpt`, and counts as the best: it is what
    train.py tests after fit.

    The parent takes up its schedule at the start of an epoch; a run that goes on within one, or in
    the last, which only updates the statistics of batch norms, would go on without. Here it is
    taken up as training starts.

    Args:
        swa_lrs: The rate that the average is made with; or one for each group of parameters.
        swa_epoch_start: First epoch of the average, counted from 1, or as a fraction of all.
        annealing_epochs: Epochs in which the rate goes from the schedule's to `swa_lrs`.
        annealing_strategy: `cos` or `linear`: how it goes there.
        device: Where the average is kept; None: where the net is.

    Raises:
        MisconfigurationException: As fit starts, if the average would begin with the weights that
            the net began with; where Lightning would take them in.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        device: str | None = "cpu",  # the parent's is a torch.device, which no config can hold
    ) -> None:
        super().__init__(
            swa_lrs, swa_epoch_start, annealing_epochs, annealing_strategy, device=device
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.swa_start == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise MisconfigurationException(
                "StochasticWeightAveraging: the average would begin with weights that have learnt "
                "nothing. Let it begin with the second epoch or later, by swa_epoch_start, or "
                "train for more epochs."
            )
        checkpoints = find_checkpoints(trainer)
        if trainer.ckpt_path is not None and checkpoints:
            average = checkpoints.folder / AVERAGE
            if average.is_file():  # the run was complete: it is what was tested
                checkpoints.best_model_path = str(average)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._scheduler_state is None:  # a new run, or the average has not begun
            return
        groups = trainer.optimizers[0].param_groups
        rates = [group["lr"] for group in groups]
        kept = self._latest_update_epoch, self._max_epochs
        # So that the parent takes this epoch for one of the average's that has been counted.
        epoch = trainer.current_epoch
        self._latest_update_epoch, self._max_epochs = epoch, epoch + 1
        super().on_train_epoch_start(trainer, pl_module)
        self._latest_update_epoch, self._max_epochs = kept
        for group, rate in zip(groups, rates, strict=True):  # the new schedule has taken a step
            group["lr"] = rate

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        checkpoints = save_first(trainer, pl_module)
        super().on_train_end(trainer, pl_module)
        if self._initialized and checkpoints is not None:
            path = checkpoints.folder / AVERAGE
            trainer.save_checkpoint(path)
            checkpoints.best_model_path = str(path)


class EMAWeightAveraging(callbacks.EMAWeightAveraging):
    """Lightning's EMAWeightAveraging: an exponential moving average of the weights.

    Validation, checkpoints and what remains after fit are the average. But where the trainer that
    did the fit loads a checkpoint to test it, the parent takes the weights that were not averaged.
    All arguments are the parent's.
    """

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        save_first(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # a run goes on: with both kinds of weights
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def save_first(trainer: L.Trainer, pl_module: L.LightningModule) -> Checkpoints | None:
    """The last checkpoint, while the net still has the weights that training goes on with."""
    checkpoints = find_checkpoints(trainer)
    if checkpoints:
        checkpoints.on_train_end(trainer, pl_module)
    return checkpoints
