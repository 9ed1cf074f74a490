"""Logging from callbacks at the same steps as `self.log` in a LightningModule."""

from collections.abc import Mapping

from lightning import Trainer

from engine.lightning_internals import is_accumulating, optimizer_steps


def step_is_logged(trainer: Trainer) -> bool:
    """Return whether the current or just finished optimizer step is one of `log_every_n_steps`."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (optimizer_steps(trainer) + 1) % every == 0


def step_is_done(trainer: Trainer) -> bool:
    """Return whether the batch that just ended completed an optimizer step."""
    return not is_accumulating(trainer)


def log_step(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Log metrics to all loggers at the step of `train/loss`; steps count from zero.

    `self.log` would add them to `trainer.callback_metrics`, and so to checkpoints and results.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=optimizer_steps(trainer))
