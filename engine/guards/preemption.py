"""Stop between two steps when told to, with a checkpoint: for queues, and for Ctrl-C."""

import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.plugins.environments import SLURMEnvironment

from engine.checkpoint.writing import find_checkpoints
from engine.lightning_internals import cluster_environment
from engine.run.folder import run_folder

EXIT_CODE = 75  # "temporary failure, try again" of sysexits.h
SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
]


class Preempted(Exception):
    """Training has stopped by a signal; its checkpoint is written."""

    exit_code = EXIT_CODE


class Preemption(L.Callback):
    """At the first SIGTERM, SIGUSR1 or Ctrl-C: finish the step, save, raise `Preempted`.

    All processes stop at the same step, whichever of them was told. A second signal does what it
    does to any program.
    """

    def __init__(self) -> None:
        self._told: str | None = None
        self._before: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        cluster = cluster_environment(trainer)
        if isinstance(cluster, SLURMEnvironment):
            # Lightning would write a checkpoint beside the run folder and requeue the job by
            # itself: scripts/slurm/train.sbatch does that, by the exit code.
            cluster.auto_requeue = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python gives signals to the main thread only
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._told = signal.Signals(number).name
        for known in self._before:
            default = signal.default_int_handler if known == signal.SIGINT else signal.SIG_DFL
            signal.signal(known, default)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            return
        told = self._told is not None
        if trainer.world_size > 1:
            told = trainer.strategy.reduce_boolean_decision(told, all=False)
        if not told:
            return
        checkpoints = find_checkpoints(trainer)
        if checkpoints and trainer.global_step:
            checkpoints.save(trainer)
        told_by = f"stopped by {self._told or 'another process'}"
        if not trainer.global_step:
            raise Preempted(f"{told_by} before the first step: there is nothing to go on with.")
        go_on = f"--resume {run_folder(trainer)}" if trainer.is_global_zero else "--resume"
        raise Preempted(
            f"{told_by} after step {trainer.global_step}; `python train.py fit {go_on}` goes on."
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._give_back()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._give_back()
