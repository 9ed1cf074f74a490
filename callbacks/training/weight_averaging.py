"""Weight averaging whose average is saved as a checkpoint and tested."""

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.trainer.states import TrainerFn

from engine.checkpoint.writing import Checkpoints, find_checkpoints
from engine.errors import UserError

AVERAGE = "average.ckpt"


class StochasticWeightAveraging(callbacks.StochasticWeightAveraging):
    """Lightning's StochasticWeightAveraging (Izmailov et al. 2018) that saves its average.

    Lightning's transfers the average to the network after the last checkpoint was saved. Here it is
    saved as `checkpoints/average.ckpt` and becomes the best checkpoint, which train.py tests.

    Lightning's restores its schedule at the start of an epoch only, so a run that resumes within
    one, or in the last one (which updates the statistics of batch norms), would not. Here it is
    restored at the start of training.

    Args:
        swa_lrs: Learning rate during averaging; or one per parameter group.
        swa_epoch_start: First epoch of averaging, counted from 1, or a fraction of all epochs.
        annealing_epochs: Epochs in which the learning rate changes to `swa_lrs`.
        annealing_strategy: `cos` or `linear`.
        device: Device of the average; None: that of the network.

    Raises:
        UserError: At the start of fit, if averaging would start in the first epoch. Lightning
            includes the initial weights in the average.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        device: str | None = "cpu",  # Lightning's torch.device cannot be written in a config
    ) -> None:
        super().__init__(
            swa_lrs, swa_epoch_start, annealing_epochs, annealing_strategy, device=device
        )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.swa_start == 0 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                "StochasticWeightAveraging: the average would include the untrained weights. Set "
                "swa_epoch_start so that it starts in the second epoch or later, or train for more "
                "epochs."
            )
        checkpoints = find_checkpoints(trainer)
        if trainer.ckpt_path is not None and checkpoints:
            average = checkpoints.folder / AVERAGE
            if average.is_file():  # the run was complete
                checkpoints.best_model_path = str(average)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._scheduler_state is None:  # a new run, or averaging has not started
            return
        groups = trainer.optimizers[0].param_groups
        rates = [group["lr"] for group in groups]
        saved = self._latest_update_epoch, self._max_epochs
        # Make Lightning treat this epoch as one of averaging that was counted already.
        epoch = trainer.current_epoch
        self._latest_update_epoch, self._max_epochs = epoch, epoch + 1
        super().on_train_epoch_start(trainer, pl_module)
        self._latest_update_epoch, self._max_epochs = saved
        for group, rate in zip(groups, rates, strict=True):  # creating a schedule takes a step
            group["lr"] = rate

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        checkpoints = save_training_weights(trainer, pl_module)
        super().on_train_end(trainer, pl_module)
        if self._initialized and checkpoints is not None:
            path = checkpoints.folder / AVERAGE
            trainer.save_checkpoint(path)
            checkpoints.best_model_path = str(path)


class EMAWeightAveraging(callbacks.EMAWeightAveraging):
    """Lightning's EMAWeightAveraging: an exponential moving average of the weights.

    Validation and checkpoints use the average, and fit ends with it. If the trainer that ran fit
    loads a checkpoint to test it, Lightning's loads the weights before averaging; this one loads
    the average. Frozen weights are their own average: the sum decay · w + (1 - decay) · w is
    rounded and would change them. The arguments are Lightning's.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            average: Any = self._average_model
            weighted_sum = average.avg_fn
            average.avg_fn = lambda mean, weight, steps: torch.where(
                mean == weight, mean, weighted_sum(mean, weight, steps)
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        save_training_weights(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:  # a resumed run needs both kinds of weights
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def save_training_weights(trainer: L.Trainer, pl_module: L.LightningModule) -> Checkpoints | None:
    """Write the last checkpoint before the average replaces the weights being trained."""
    checkpoints = find_checkpoints(trainer)
    if checkpoints:
        checkpoints.on_train_end(trainer, pl_module)
    return checkpoints
