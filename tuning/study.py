"""An Optuna study in a SQLite file, shared by several processes."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from engine.run.config_differences import differences
from tuning.search import Search
from tuning.trial import resumable

# Taking over a trial is an experiment of Optuna's, for years; tests hold what is used of it.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*already reported")  # as a trial that goes on does

DATABASE = "study.db"
EXHAUSTED = "exhausted"
MAX_RETRIES = 10  # of a trial whose process died each time: perhaps it is the trial that kills
SECONDS_BETWEEN_LOOKS = 0.5  # at the trials of other processes


class SharedStudy:
    """Assign the trials of an Optuna study to worker processes.

    A worker holds a file lock while it runs, which the operating system releases when the process
    ends for any reason. Trials of workers without a lock are assigned again and resume in their run
    folder.

    Args:
        folder: Folder of the database and the locks; created if missing.
        search: The search.
        config: The resolved config common to all trials.

    Raises:
        MisconfigurationException: If the study in the folder searches something else.
    """

    def __init__(self, folder: Path, search: Search, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.search = search
        self.lock = FileLock(folder / ".lock")  # held while trials are counted and handed out
        self.worker = f"worker-{uuid4().hex}"
        with self.lock:
            storage = RDBStorage(
                f"sqlite:///{(folder / DATABASE).resolve()}",
                engine_kwargs={"connect_args": {"timeout": 60}},  # seconds, for others to write
            )
            self.study = optuna.create_study(
                study_name=folder.parent.name,
                storage=storage,
                direction=search.direction,
                pruner=search.pruner(),
                load_if_exists=True,
            )
            # A sampler that has tried everything says so as within `Study.optimize`.
            self.study.stop = lambda: self.study.set_user_attr(EXHAUSTED, True)  # type: ignore[method-assign]
            told = {"search": search.describe(), "config": dict(config)}
            begun_with = {name: self.study.user_attrs.get(name) for name in told}
            if not self.study.user_attrs:
                for name, value in told.items():
                    self.study.set_user_attr(name, value)
            elif changed := differences([begun_with, told]):
                first = "; ".join(
                    f"{key} was {old!r}, is {new!r}" for key, (old, new) in [*changed.items()][:5]
                )
                raise MisconfigurationException(
                    f"the study in {folder} searches something else: {first}. Its trials could "
                    "not be compared: begin another study with --experiment NAME."
                )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold the lock of this worker."""
        own = self._lock_of(self.worker)
        try:
            with own:
                yield
        finally:
            Path(own.lock_file).unlink(missing_ok=True)

    def next_trial(self) -> optuna.Trial | None:
        """Return the next trial for this worker; None when all are finished.

        While other workers run the last trials, wait: their processes may end.
        """
        while True:
            with self.lock:
                self._take_from_the_dead()
                trials = self.trials()
                waiting = any(trial.state == TrialState.WAITING for trial in trials)
                if waiting or self._wants_more(trials):
                    self.study.sampler = self.search.sampler(len(trials))
                    trial = self.study.ask(dict(self.search.distributions))
                    trial.set_user_attr("worker", self.worker)
                    return trial
                if not any(trial.state == TrialState.RUNNING for trial in trials):
                    return None
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials except those assigned again under another number."""
        trials = self.study.get_trials(deepcopy=False)
        replaced = {
            number for t in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(t)
        }
        return [trial for trial in trials if trial.number not in replaced]

    def done(self) -> bool:
        trials = self.trials()
        return not self._wants_more(trials) and all(t.state.is_finished() for t in trials)

    def _wants_more(self, trials: Sequence[FrozenTrial]) -> bool:
        return len(trials) < self.search.trials and EXHAUSTED not in self.study.user_attrs

    def _take_from_the_dead(self) -> None:
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            worker = trial.user_attrs.get("worker")
            if worker is not None and self._lives(worker):
                continue
            # Whoever has no name yet died while it held the lock that this process holds now.
            # Optuna has no public way to write to the running trial of another process.
            trial_id = trial._trial_id  # noqa: SLF001  # see above
            self.study._storage.set_trial_user_attr(  # noqa: SLF001  # see above
                trial_id, "error", "its process died"
            )
            self.study.tell(trial.number, state=TrialState.FAIL)
            again = RetryHeartbeatStaleTrialCallback(
                MAX_RETRIES, inherit_intermediate_values=resumable(trial.user_attrs.get("run"))
            )
            again(self.study, trial)

    def _lives(self, worker: str) -> bool:
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
