"""Save a checkpoint and stop on SIGTERM, SIGUSR1 or Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import SLURMEnvironment

from engine.checkpoint.writing import find_checkpoints
from engine.lightning_internals import cluster_environment
from engine.run.folder import run_folder

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
]


class Preempted(Exception):
    """A signal stopped training; the checkpoint is written."""

    exit_code = EXIT_CODE


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Raise `Preempted` on a SIGTERM before or after training, so that an empty run is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    previous = signal.signal(signal.SIGTERM, _raise_preempted)
    try:
        yield
    finally:
        # Preemption ignores it until the process ends, see `on_exception`.
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


def terminate_on_sigterm() -> None:
    """Restore the default SIGTERM: no Python handler runs while a process waits for the others."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_preempted(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Preempted("Interrupted by SIGTERM outside training; checkpoints are as they were.")


class Preemption(L.Callback):
    """On the first SIGTERM, SIGUSR1 or Ctrl-C finish the step, save and raise `Preempted`.

    All processes stop at the same step, whichever of them received the signal. A second signal has
    its default effect.
    """

    def __init__(self) -> None:
        self._received_signal: str | None = None
        self._previous_handlers: dict[int, Any] = {}
        self._is_slurm_job = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        cluster = cluster_environment(trainer)
        if isinstance(cluster, SLURMEnvironment):
            # scripts/slurm/train.sbatch requeues the job by its exit code; Lightning would write
            # a checkpoint outside the run folder.
            cluster.auto_requeue = False
            self._is_slurm_job = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in SIGNALS:
            self._previous_handlers[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received_signal = signal.Signals(number).name
        for known in self._previous_handlers:
            default = signal.default_int_handler if known == signal.SIGINT else signal.SIG_DFL
            signal.signal(known, default)

    def _restore_handlers(self) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous_handlers = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        stop = self._received_signal is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if not stop:
            return
        checkpoints = find_checkpoints(trainer)
        if checkpoints and trainer.global_step:
            checkpoints.save(trainer)
        name = self._received_signal or "a signal to another process"
        if not trainer.global_step:
            raise Preempted(f"Interrupted by {name} before the first step; nothing was saved.")
        folder = run_folder(trainer) if trainer.is_global_zero else "RUN_FOLDER"
        raise Preempted(
            f"Interrupted by {name} at step {trainer.global_step}. Checkpoint saved; resume with: "
            f"python train.py fit --resume {folder}"
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()
        if self._is_slurm_job and isinstance(exception, Preempted):
            # `srun --kill-on-bad-exit` sends SIGTERM once the first process exits with code 75.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
