"""Checkpoints from which a run goes on as if it had never stopped: the best, and the last."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from engine.guards.full_disk import remove_if_disk_full
from engine.lightning_internals import finish_restart
from engine.renamed import upgrade_hyperparameters
from engine.run.csv_logger import ResumableCSVLogger
from engine.run.folder import run_folder

Progress = dict[str, Any]  # a loop's counters: ready, started, processed, completed


class Checkpoints(Checkpoint):
    """Write `checkpoints/best.ckpt` and `checkpoints/last.ckpt` into the run folder.

    All is saved between two optimizer steps, when nothing is pending: the metrics of the step are
    logged, validation is over, schedules have advanced. (Lightning's ModelCheckpoint saves within
    its hooks, where half of that is still to come: a run that goes on from there counts and logs
    otherwise.) A file is written under another name, flushed to the disk and then renamed, so that
    under its own name there is always a whole one, whatever happens to the process or the machine.

    `last.ckpt` is written after each validation and, where an interval is given, also when it is
    over; `best.ckpt` after a validation whose `monitor` is better than all before.

    Args:
        monitor: Metric that decides what is best; None: `best.ckpt` is the last.
        mode: "min" or "max" of the metric is best.
        every_n_steps: Optimizer steps between two writings of `last.ckpt`.
        every_n_minutes: Minutes between them; both may be given.
    """

    def __init__(
        self,
        monitor: str | None = "val/loss",
        mode: str = "min",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be min or max, not {mode!r}")
        for name, value in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value}; leave it out for never")
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.best_model_path = ""
        self.best_model_score: float | None = None
        self.folder = Path()
        self._validated = False  # since the last writing
        self._improved = False
        self._saved_step = 0
        self._saved_at = 0.0
        self._epochs = self._batches = 0  # where the run stands: whole epochs, and batches after
        self._metrics: dict[str, Tensor] = {}  # schedules and callbacks may look at older ones
        self._logged_rows: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.folder = Path(trainer.strategy.broadcast(str(self._where(trainer))))

    @staticmethod
    def _where(trainer: L.Trainer) -> Path:
        if not trainer.loggers:  # a trainer without our command line
            return Path(trainer.default_root_dir, "checkpoints")
        return run_folder(trainer) / "checkpoints"

    @staticmethod
    def _validates_between_steps(trainer: L.Trainer) -> bool:
        """Whether no validation falls between the batches that one optimizer step accumulates.

        The last batch of an epoch always ends a step; where validation counts on from one epoch to
        the next, an epoch that is no multiple of the accumulation moves it against the steps.
        """
        every, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
        epoch = trainer.num_training_batches
        if every is None or every == float("inf") or every % epoch == 0:
            return True
        if every % batches:
            return False
        across = trainer.check_val_every_n_epoch is None
        return not across or epoch == float("inf") or epoch % batches == 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._validates_between_steps(trainer):
            every, batches = trainer.val_check_batch, trainer.accumulate_grad_batches
            raise MisconfigurationException(
                f"validation after every {every} batches would fall between the "
                f"{batches} batches of one optimizer step, and the best checkpoint would not hold "
                "the weights that were validated: make --trainer.val_check_interval a multiple of "
                "--trainer.accumulate_grad_batches."
            )
        self._saved_at = time.monotonic()
        self._saved_step = trainer.global_step
        trainer.callback_metrics.update(self._metrics)
        for logger in trainer.loggers:
            if isinstance(logger, ResumableCSVLogger) and self._logged_rows is not None:
                logger.truncate(self._logged_rows)
        finish_restart(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validated = True
        if self.monitor is None:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise MisconfigurationException(
                f"--checkpoint.monitor {self.monitor}: there is no such metric. Known: {known}."
            )
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
        if self._due(trainer):
            self.save(trainer)

    def _due(self, trainer: L.Trainer) -> bool:
        steps = trainer.global_step - self._saved_step
        if self._validated or (self.every_n_steps and steps >= self.every_n_steps):
            return True
        if not self.every_n_minutes:
            return False
        over = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return bool(trainer.strategy.broadcast(over))  # clocks differ: rank zero's counts

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step and (self._validated or trainer.global_step != self._saved_step):
            self.save(trainer)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.callback_metrics:  # the run was complete before
            trainer.callback_metrics.update(self._metrics)

    def save(self, trainer: L.Trainer) -> None:
        """Write `last.ckpt`, and `best.ckpt` where validation found it to be; all ranks together.

        Only to be called between two steps.
        """
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
        if trainer.is_global_zero and partial.is_dir():  # of a run that was killed within it
            shutil.rmtree(partial)
        trainer.strategy.barrier("before checkpoints")
        with remove_if_disk_full(partial):
            trainer.save_checkpoint(partial, weights_only=False)
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
        """Put the loops' counters to where the run stands: between two steps nothing is half done.

        A batch that was fetched but not trained on will be fetched again.
        """
        if not self._epochs and not self._batches:  # someone else saves
            return
        checkpoint["epoch"] = self._epochs
        loops = checkpoint["loops"]["fit_loop"]
        begun = self._epochs + (self._batches > 0)
        for counted in ("total", "current"):
            _set(loops["epoch_progress"][counted], started=begun, done=self._epochs)
        batches = loops["epoch_loop.batch_progress"]
        trained = batches["total"]["completed"]
        _set(batches["total"], started=trained, done=trained)
        _set(batches["current"], started=self._batches, done=self._batches)
        batches["is_last_batch"] = False
        validated = loops["epoch_loop.val_loop.batch_progress"]
        for counted in ("total", "current"):
            _set(validated[counted], started=0, done=0)
        validated["is_last_batch"] = False
        for state in loops["state_dict"].get("combined_loader", []):
            state["position"] = self._batches

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        upgrade_hyperparameters(checkpoint)  # names of callbacks, before their states are loaded

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "mode": self.mode,
            "best_model_score": self.best_model_score,
            "best_model_name": Path(self.best_model_path).name,
            "metrics": self._metrics,
            "logged_rows": self._logged_rows,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._metrics, self._logged_rows = state_dict["metrics"], state_dict["logged_rows"]
        if (state_dict["monitor"], state_dict["mode"]) != (self.monitor, self.mode):
            # What was best by another measure tells nothing.
            if self.monitor is None and (self.folder / "last.ckpt").exists():
                self.best_model_path = str(self.folder / "last.ckpt")  # until the next is written
            return
        best = self.folder / state_dict["best_model_name"]
        if state_dict["best_model_name"] and best.is_file():  # else this is another run's folder
            self.best_model_score = state_dict["best_model_score"]
            self.best_model_path = str(best)


def _position(trainer: L.Trainer) -> tuple[int, int]:
    """Epochs that are over, and batches of the one under way, at the edge of a step."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    if batches >= trainer.num_training_batches:
        # The next epoch has no batch yet, or this one was the last.
        return epochs.processed, 0
    if epochs.processed == epochs.started and batches:
        # Training ends within an epoch (max_steps, max_time); Lightning calls it over all the same.
        return epochs.processed - 1, batches
    return epochs.processed, batches


def _set(progress: Progress, started: int, done: int) -> None:
    progress |= {"ready": started, "started": started, "processed": done, "completed": done}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():  # a sharded checkpoint
        _remove(target)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _replace(partial: Path, target: Path) -> None:
    """Give a whole file, or a sharded checkpoint's folder, its name, on the disk too."""
    for path in [partial] if partial.is_file() else [p for p in partial.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if partial.is_file() and not target.is_dir():
        partial.replace(target)
        return
    # Folders change places in two steps: between them the old one has the name that resuming knows.
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
