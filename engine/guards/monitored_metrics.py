"""Check before training that early stopping and schedules monitor metrics that are logged."""

from collections.abc import Iterator
from difflib import get_close_matches

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

from engine.errors import UserError


class MonitoredMetrics(L.Callback):
    """Report a misspelled `monitor` after the sanity check, not after the first epoch.

    The sanity check logs the metrics of validation. A monitor that is not among them may be a
    metric of training, so it is an error only if it begins with `val` or resembles one of them.

    Raises:
        UserError: Before training, with the metrics that are logged.
    """

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logged = sorted(trainer.callback_metrics)
        for owner, monitor in _monitors(trainer):
            similar = get_close_matches(monitor, logged, n=1, cutoff=0.7)
            if monitor in logged or not (monitor.startswith("val") or similar):
                continue
            suggestion = f" Did you mean {similar[0]}?" if similar else ""
            raise UserError(
                f"{owner}: no metric {monitor!r} to monitor.{suggestion} Logged by validation: "
                f"{', '.join(logged) or 'none'}."
            )


def _monitors(trainer: L.Trainer) -> Iterator[tuple[str, str]]:
    """Yield who monitors a metric, and its name."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.strict:
            yield f"trainer.callbacks: {type(callback).__name__}", callback.monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.strict and config.monitor is not None:
            yield f"model.lr_scheduler: {type(config.scheduler).__name__}", config.monitor
