"""Optuna study in a SQLite file, shared by several processes and resumable."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from engine.errors import UserError
from engine.run.config_differences import differences
from tuning.search import Search
from tuning.trial import is_resumable

# RetryHeartbeatStaleTrialCallback is still marked experimental.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*already reported")  # by a trial before it was resumed

DATABASE = "study.db"
EXHAUSTED = "exhausted"
MAX_RETRIES = 10  # of a trial whose process died each time, perhaps because of the trial
POLL_SECONDS = 0.5  # while other processes run the last trials


class SharedStudy:
    """Optuna study whose trials are distributed to several worker processes.

    A running worker holds a lock on a file of its own. The operating system releases the lock when
    the process ends, so another worker detects orphaned trials without timeouts and runs them
    again, resuming from their run folders.

    Args:
        folder: Folder of the database and the lock files; created if missing.
        search: Search space, sampler, pruner and number of trials.
        config: Resolved config that all trials share.

    Raises:
        UserError: If the study in the folder has another search or config.
    """

    def __init__(self, folder: Path, search: Search, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.search = search
        self.worker = f"worker-{uuid4().hex}"
        self._study_lock = FileLock(folder / ".lock")  # held while a trial is assigned
        with self._study_lock:
            self._storage = RDBStorage(
                f"sqlite:///{(folder / DATABASE).resolve()}",
                engine_kwargs={"connect_args": {"timeout": 60}},  # seconds to wait for writers
            )
            self.study = optuna.create_study(
                study_name=folder.parent.name,
                storage=self._storage,
                direction=search.direction,
                pruner=search.pruner(),
                load_if_exists=True,
            )
            # A sampler without untried parameters calls `stop`, which raises outside of `optimize`.
            self.study.stop = lambda: self.study.set_user_attr(EXHAUSTED, True)  # type: ignore[method-assign]
            self._check_unchanged({"search": search.describe(), "config": dict(config)})

    def _check_unchanged(self, settings: Mapping[str, Any]) -> None:
        if not self.study.user_attrs:
            for name, value in settings.items():
                self.study.set_user_attr(name, value)
            return
        stored = {name: self.study.user_attrs.get(name) for name in settings}
        if changed := differences([stored, settings]):
            first = [f"{key}: {old!r} → {new!r}" for key, (old, new) in [*changed.items()][:5]]
            raise UserError(
                f"cannot continue the study in {self.folder}: its search or config differs "
                f"({'; '.join(first)}). Use --experiment NAME to start another study."
            )

    @contextmanager
    def worker_lock(self) -> Iterator[None]:
        """Mark this process as a running worker."""
        lock = self._lock_of(self.worker)
        try:
            with lock:
                yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)

    def next_trial(self) -> optuna.Trial | None:
        """Return a trial for this worker, or None when all are finished.

        Block while other workers run the last trials, since those must be run again if a worker
        dies.
        """
        while True:
            with self._study_lock:
                self._requeue_orphaned_trials()
                trials = self.trials()
                is_waiting = any(trial.state == TrialState.WAITING for trial in trials)
                if is_waiting or self._needs_more(trials):
                    self.study.sampler = self.search.sampler(len(trials))
                    trial = self.study.ask(dict(self.search.distributions))
                    trial.set_user_attr("worker", self.worker)
                    return trial
                if not any(trial.state == TrialState.RUNNING for trial in trials):
                    return None
            time.sleep(POLL_SECONDS)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials except those that were run again under another number."""
        trials = self.study.get_trials(deepcopy=False)
        retried = {n for t in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(t)}
        return [trial for trial in trials if trial.number not in retried]

    def is_done(self) -> bool:
        trials = self.trials()
        return not self._needs_more(trials) and all(t.state.is_finished() for t in trials)

    def _needs_more(self, trials: Sequence[FrozenTrial]) -> bool:
        return len(trials) < self.search.num_trials and EXHAUSTED not in self.study.user_attrs

    def _requeue_orphaned_trials(self) -> None:
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            worker = trial.user_attrs.get("worker")
            # A trial without a worker belongs to a process that died while it held `_study_lock`.
            if worker is not None and self._is_alive(worker):
                continue
            study_id = self._storage.get_study_id_from_name(self.study.study_name)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            self._storage.set_trial_user_attr(trial_id, "error", "its process died")
            self.study.tell(trial.number, state=TrialState.FAIL)
            retry = RetryHeartbeatStaleTrialCallback(
                MAX_RETRIES, inherit_intermediate_values=is_resumable(trial.user_attrs.get("run"))
            )
            retry(self.study, trial)

    def _is_alive(self, worker: str) -> bool:
        lock = self._lock_of(worker)
        try:
            with lock.acquire(timeout=0):
                pass
        except Timeout:
            return True
        Path(lock.lock_file).unlink(missing_ok=True)
        return False

    def _lock_of(self, worker: str) -> FileLock:
        return FileLock(self.folder / f".{worker}")
