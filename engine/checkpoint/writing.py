"""Write the best and the last checkpoint, from which a run resumes bit for bit."""

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import MetricCollection

from engine.errors import UserError
from engine.guards.full_disk import remove_if_disk_full
from engine.lightning_internals import finish_restart
from engine.renamed import upgrade_hyperparameters
from engine.run.csv_logger import ResumableCSVLogger
from engine.run.folder import run_folder

Progress = dict[str, Any]  # counters of a loop: ready, started, processed, completed
DEFAULT_MONITOR = "val/loss"
# Words in the names of metrics, for those that are not a torchmetrics metric of the task.
LOWER_IS_BETTER = {"loss", "error", "perplexity", "mae", "mse", "rmse", "nll", "ece", "wer", "cer"}
HIGHER_IS_BETTER = {"accuracy", "acc", "f1", "precision", "recall", "auroc", "auc", "bleu", "chrf"}
HIGHER_IS_BETTER |= {"rouge", "iou", "dice", "r2", "correlation", "spearman", "reward", "score"}


class Checkpoints(Checkpoint):
    """Write `checkpoints/best.ckpt` and `checkpoints/last.ckpt` into the run folder.

    Checkpoints are saved between two optimizer steps: after the metrics of a step are logged,
    validation has ended and schedules have advanced. Lightning's ModelCheckpoint saves inside its
    hooks, before some of that, so a resumed run would count and log differently. Each file is
    written under a temporary name, flushed to disk and renamed; the file under its final name is
    always complete.

    `last.ckpt` is written after each validation and after every interval that is set; `best.ckpt`
    after a validation that improves `monitor`.

    Args:
        monitor: Metric that selects the best checkpoint; None: `best.ckpt` is the last one.
        mode: `min` or `max`; None: max if the torchmetrics metric of that name has
            `higher_is_better`, else by the metric's name.
        every_n_steps: Optimizer steps between two writes of `last.ckpt`.
        every_n_minutes: Minutes between two writes of `last.ckpt`; both intervals may be set.

    Raises:
        UserError: Before training, if the mode cannot be derived from `monitor`.
    """

    def __init__(
        self,
        monitor: str | None = DEFAULT_MONITOR,
        mode: Literal["min", "max"] | None = None,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}; omit it to disable it")
        self.monitor = monitor
        self.mode: str | None = mode
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.best_model_path = ""
        self.best_model_score: float | None = None
        self.folder = Path()
        self._validated = False  # since the last save
        self._improved = False
        self._saved_step = 0
        self._saved_at = 0.0
        self._epochs = self._batches = 0  # completed epochs, and batches of the current one
        self._metrics: dict[str, Tensor] = {}  # schedules and callbacks may read earlier ones
        self._logged_rows: int | None = None
        self._should_stop = self._saving = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            if self.monitor == DEFAULT_MONITOR and not trainer.enable_validation:
                self.monitor = None
            self.folder = Path(trainer.strategy.broadcast(str(self._checkpoint_folder(trainer))))

    @staticmethod
    def _checkpoint_folder(trainer: L.Trainer) -> Path:
        if not trainer.loggers:  # a trainer that train.py did not build
            return Path(trainer.default_root_dir, "checkpoints")
        return run_folder(trainer) / "checkpoints"

    def _choose_mode(self, module: L.LightningModule) -> None:
        if self.monitor is not None and self.mode is None:
            self.mode = metric_mode(self.monitor, module)

    @staticmethod
    def _validates_between_steps(trainer: L.Trainer) -> bool:
        """Return whether validation never falls between accumulated batches of an optimizer step.

        The last batch of an epoch always ends a step. Where validation counts batches across
        epochs, an epoch length that is not a multiple of the accumulation shifts one against the
        other.
        """
        every, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
        epoch = trainer.num_training_batches
        if every is None or every == float("inf") or every % epoch == 0:
            return True
        if every % batches:
            return False
        across_epochs = trainer.check_val_every_n_epoch is None
        return not across_epochs or epoch == float("inf") or epoch % batches == 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._choose_mode(pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._validates_between_steps(trainer):
            every, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
            raise UserError(
                f"validation every {every} batches falls between the {batches} accumulated batches "
                "of an optimizer step, so the best checkpoint would not hold the validated "
                "weights: make --trainer.val_check_interval a multiple of "
                "--trainer.accumulate_grad_batches."
            )
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        trainer.callback_metrics.update(self._metrics)
        trainer.should_stop = trainer.should_stop or self._should_stop
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                # A run that resumes within an epoch does not call this hook.
                callback.on_train_epoch_start(trainer, pl_module)
        for logger in trainer.loggers:
            if isinstance(logger, ResumableCSVLogger) and self._logged_rows is not None:
                logger.truncate(self._logged_rows)
        finish_restart(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        value = None if self.monitor is None else trainer.callback_metrics.get(self.monitor)
        if self.monitor is not None and value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            if self.monitor != DEFAULT_MONITOR:
                raise UserError(
                    f"--checkpoint.monitor {self.monitor}: no such metric. Logged: {known}."
                )
            rank_zero_warn(
                f"{self.monitor} is not logged, so best.ckpt is the last checkpoint; to select "
                f"another set --checkpoint.monitor to one of: {known}."
            )
            self.monitor = None
        elif value is not None and self.mode is None:
            raise UserError(
                f"checkpoint.mode: cannot derive from the name {self.monitor!r} whether higher or "
                "lower is better. Set --checkpoint.mode min or --checkpoint.mode max."
            )
        if trainer.sanity_checking:
            return
        self._validated = True
        if value is None:
            return
        score, best = float(value), self.best_model_score
        if best is None or (score < best if self.mode == "min" else score > best):
            self.best_model_score = score
            self._improved = True
            self.best_model_path = str(self.folder / "best.ckpt")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._saved_step or batch_idx % trainer.accumulate_grad_batches:
            return
        if self._is_due(trainer):
            self.save(trainer)

    def _is_due(self, trainer: L.Trainer) -> bool:
        steps = trainer.global_step - self._saved_step
        if self._validated or (self.every_n_steps and steps >= self.every_n_steps):
            return True
        if not self.every_n_minutes:
            return False
        is_over = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return bool(trainer.strategy.broadcast(is_over))  # by the clock of rank zero

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step and (self._validated or trainer.global_step != self._saved_step):
            self.save(trainer, is_end=True)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.callback_metrics:  # the resumed run was complete already
            trainer.callback_metrics.update(self._metrics)

    def save(self, trainer: L.Trainer, is_end: bool = False) -> None:
        """Write `last.ckpt`, and `best.ckpt` if the last validation improved; all ranks call it.

        Call it between two optimizer steps only.

        Args:
            trainer: The trainer.
            is_end: Whether training has ended; before that, a pending stop (EarlyStopping that
                waits for `min_epochs`) is part of the checkpoint.
        """
        self._should_stop = trainer.should_stop and not is_end
        self._epochs, self._batches = _position(trainer)
        self._metrics = {name: value.cpu() for name, value in trainer.callback_metrics.items()}
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, ResumableCSVLogger):
                self._logged_rows = logger.num_rows()
        last = self.folder / "last.ckpt"
        partial = self.folder / "last.ckpt.part"
        if self.monitor is None:
            self.best_model_path, self._improved = str(self.folder / "best.ckpt"), True
        if trainer.is_global_zero and partial.is_dir():  # left by a run killed while writing it
            shutil.rmtree(partial)
        trainer.strategy.barrier("before checkpoints")
        self._saving = True
        with remove_if_disk_full(partial):
            trainer.save_checkpoint(partial, weights_only=False)
        self._saving = False
        if trainer.is_global_zero:
            if self._improved:
                best = self.folder / "best.ckpt.part"
                with remove_if_disk_full(best, partial):
                    _copy(partial, best)
                _replace(best, self.folder / "best.ckpt")
            _replace(partial, last)
        trainer.strategy.barrier("checkpoints")
        self._validated = self._improved = False
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the loops' counters to the boundary between two steps.

        A batch that was fetched but not trained on is fetched again.
        """
        if not self._saving:  # another callback saves, inside a hook
            return
        checkpoint["epoch"] = self._epochs
        loops = checkpoint["loops"]["fit_loop"]
        started = self._epochs + (self._batches > 0)
        for counted in ("total", "current"):
            _set(loops["epoch_progress"][counted], started=started, completed=self._epochs)
        batches = loops["epoch_loop.batch_progress"]
        trained = batches["total"]["completed"]
        _set(batches["total"], started=trained, completed=trained)
        _set(batches["current"], started=self._batches, completed=self._batches)
        batches["is_last_batch"] = False
        validated = loops["epoch_loop.val_loop.batch_progress"]
        for counted in ("total", "current"):
            _set(validated[counted], started=0, completed=0)
        validated["is_last_batch"] = False
        for state in loops["state_dict"].get("combined_loader", []):
            state["position"] = self._batches

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._choose_mode(pl_module)
        upgrade_hyperparameters(checkpoint)  # names of callbacks, before their states are loaded

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "best_model_score": self.best_model_score,
            "best_model_name": Path(self.best_model_path).name,
            "metrics": self._metrics,
            "logged_rows": self._logged_rows,
            "should_stop": self._should_stop,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._metrics, self._logged_rows = state_dict["metrics"], state_dict["logged_rows"]
        self._should_stop = state_dict.get("should_stop", False)
        if self.monitor == DEFAULT_MONITOR and state_dict["monitor"] is None:
            self.monitor = None  # the task does not log it
        if (state_dict["monitor"], state_dict["mode"]) != (self.monitor, self.mode):
            # The saved best is the best by another metric.
            if self.monitor is None and (self.folder / "last.ckpt").exists():
                self.best_model_path = str(self.folder / "last.ckpt")  # until the next save
            return
        best = self.folder / state_dict["best_model_name"]
        if best.is_file():  # otherwise this is the folder of another run
            self.best_model_score = state_dict["best_model_score"]
            self.best_model_path = str(best)


def find_checkpoints(trainer: L.Trainer) -> Checkpoints | None:
    """Return the run's checkpoint callback, which need not be `trainer.checkpoint_callback`."""
    return next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)  # type: ignore[attr-defined]


def metric_mode(name: str, module: L.LightningModule) -> str | None:
    """Return `max` or `min` for a logged metric, or None if neither metric nor name says which.

    Args:
        name: Name under which the metric is logged, such as `val/accuracy`.
        module: The task; its torchmetrics metrics have `higher_is_better`.
    """
    metrics = {
        key: metric
        for collection in module.modules()
        if isinstance(collection, MetricCollection)
        for key, metric in collection.items(copy_state=False)
    }
    metric = metrics.get(name, getattr(module, name.replace("/", "_"), None))
    higher = getattr(metric, "higher_is_better", None)
    if higher is None:
        words = {*re.split(r"[/_\W]+", name.lower())}
        higher, lower = bool(words & HIGHER_IS_BETTER), bool(words & LOWER_IS_BETTER)
        if higher == lower:
            return None
    return "max" if higher else "min"


def _position(trainer: L.Trainer) -> tuple[int, int]:
    """Return the completed epochs, and the batches of the current one, between two steps."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    progress = trainer.fit_loop.epoch_loop.batch_progress
    batches = progress.current.completed
    exhausted = progress.is_last_batch and progress.current.ready == batches  # unknown length
    if batches >= trainer.num_training_batches or exhausted:
        # The next epoch has no batch yet, or this one was the last.
        return epochs.processed, 0
    if epochs.processed == epochs.started and batches:
        # Training ends within an epoch (max_steps, max_time), which Lightning counts as processed.
        return epochs.processed - 1, batches
    return epochs.processed, batches


def _set(progress: Progress, started: int, completed: int) -> None:
    progress |= {"ready": started, "started": started}
    progress |= {"processed": completed, "completed": completed}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():  # a sharded checkpoint
        _remove(target)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _replace(partial: Path, target: Path) -> None:
    """Flush a file, or the folder of a sharded checkpoint, to disk and give it its final name."""
    for path in [partial] if partial.is_file() else [p for p in partial.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if partial.is_file() and not target.is_dir():
        partial.replace(target)
        return
    # A folder is replaced in two steps; between them, resuming finds the old one as *.old.
    old = target.with_name(target.name + ".old")
    _remove(old)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
