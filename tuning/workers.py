"""Run the trials of a study in this process or in several worker processes."""

import gc
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from cli.diagnosis import source_location
from engine.errors import UserError
from engine.guards.preemption import SIGNALS, Preempted
from tuning.study import SharedStudy
from tuning.trial import train


def run_trials(study: SharedStudy, arguments: Sequence[str]) -> Iterator[FrozenTrial]:
    """Run trials until the study is done and yield each when it has finished.

    An error of a trial is stored in the study as its user attribute `error`.

    Args:
        study: Study that assigns the trials.
        arguments: Arguments of train.py that all trials share.

    Raises:
        Preempted: After a signal; the trial's checkpoint is saved.
    """
    with study.worker_lock():
        while (trial := study.next_trial()) is not None:
            state, value = TrialState.COMPLETE, None
            try:
                value = train(trial, study.search, arguments)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except Preempted:
                raise
            except UserError as error:
                state = TrialState.FAIL
                trial.set_user_attr("error", str(error))
            except Exception as error:
                state = TrialState.FAIL
                message = f"{source_location(error)}{type(error).__name__}: {error}"
                trial.set_user_attr("error", message)
            gc.collect()  # free the memory of this trial before the next one starts
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            yield study.study.tell(trial, value, state)


def run_workers(command: Sequence[str], num_workers: int) -> None:
    """Start worker processes and wait for all of them.

    Args:
        command: Command of a worker, without its number: `--worker N` is appended.
        num_workers: Number of processes.

    Raises:
        Preempted: After a signal, when each worker has finished its step and saved a checkpoint.
    """

    def stop(number: int, frame: Any) -> None:
        raise Preempted(f"Interrupted by {signal.Signals(number).name}.")

    handlers = {number: signal.signal(number, stop) for number in SIGNALS}
    # In their own sessions, so that Ctrl-C reaches only this process, which terminates them once.
    workers = [
        subprocess.Popen([*command, "--worker", str(index)], start_new_session=True)
        for index in range(num_workers)
    ]
    try:
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)
