"""Draw loss, metrics and learning rate against the step."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from engine.checkpoint.writing import find_checkpoints
from engine.run.figures import publish
from plotting.curves import curves_figure, read_metrics


class TrainingCurves(Callback):
    """Draw `figures/training_curves.png` at the end of fit, also of an interrupted one.

    There is a panel for each metric, logged as `<stage>/<metric>`, `<stage>_<metric>` or by another
    name without `/`, and one for the learning rate. The best validation by `checkpoint.monitor`, by
    default the lowest `val/loss`, is marked. Needs a CSVLogger among the trainer's loggers.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        dry_run = trainer.fast_dev_run  # type: ignore[attr-defined]
        if stage == "fit" and not dry_run and _csv_logger(trainer) is None:
            rank_zero_warn(
                "TrainingCurves draws nothing: it reads metrics.csv, which no logger of this "
                "trainer writes. Add lightning.pytorch.loggers.CSVLogger to trainer.logger."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logger = _csv_logger(trainer)
        if logger is None:
            return
        logger.save()  # rows since the last flush are still in memory
        file = Path(logger.log_dir) / "metrics.csv"
        monitor, mode = _monitor_and_mode(trainer)
        publish(
            trainer, "training_curves", lambda: curves_figure(read_metrics(file), monitor, mode)
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        # With several processes the others may not have failed, so collectives would hang.
        if trainer.state.fn == TrainerFn.FITTING and trainer.world_size == 1:
            self.on_fit_end(trainer, pl_module)


def _csv_logger(trainer: Trainer) -> CSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)


def _monitor_and_mode(trainer: Trainer) -> tuple[str, str]:
    checkpoints = find_checkpoints(trainer)
    if checkpoints and checkpoints.monitor and checkpoints.mode:
        return checkpoints.monitor, checkpoints.mode
    return "val/loss", "min"
