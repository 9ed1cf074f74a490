"""Which steps callbacks log, and how: as Lightning does what a task logs with `self.log`."""

from collections.abc import Mapping

from lightning import Trainer


def step_is_logged(trainer: Trainer) -> bool:
    """Whether the optimizer step under way, or just done, is one of every `log_every_n_steps`."""
    loop = trainer.fit_loop.epoch_loop
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (loop._batches_that_stepped + 1) % every == 0


def step_is_done(trainer: Trainer) -> bool:
    """Whether the batch that just ended was the last one of its optimizer step."""
    return not trainer.fit_loop._should_accumulate()


def log_step(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Tell all loggers, at the step at which they hear `train/loss`. Steps count from zero.

    Not by `self.log`: what is logged so becomes a result of the run, and part of its checkpoints.
    """
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=step)
