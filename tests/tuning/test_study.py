"""A study is resumable and gives each trial to one living worker."""

from pathlib import Path

import optuna

import tuning.study
from tests.support.studies import SEARCH, THREE_OUTCOMES, write
from tuning.search import read_search
from tuning.study import SharedStudy

SAMPLER = "{class_path: optuna.samplers.TPESampler, init_args: {seed: 1, n_startup_trials: 4}}"


def open_study(folder: Path, trials: int = 8) -> SharedStudy:
    text = f"sampler: {SAMPLER}\n" + SEARCH.replace("trials: 2", f"trials: {trials}")
    return SharedStudy(folder / "runs/mine/study", read_search(write(folder, text)), {"a": 1})


def finish(study: SharedStudy, trial: optuna.Trial) -> None:
    study.study.tell(trial, -abs(trial.params["model.optimizer.lr"] - 0.02))


def parameters(study: SharedStudy) -> list[dict]:
    return [trial.params for trial in study.trials()]


def test_exhausted_sampler_ends_the_study(tmp_path: Path) -> None:
    text = THREE_OUTCOMES.replace("trials: 3", "trials: 9")
    study = SharedStudy(tmp_path, read_search(write(tmp_path, text)), {})
    with study.worker_lock():
        while trial := study.next_trial():
            study.study.tell(trial, 0.5)
    assert len(study.study.trials) == 3
    assert study.is_done()


def test_resumed_study_suggests_the_same_parameters(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("uninterrupted", "interrupted")]
    for folder in folders:
        folder.mkdir()
    uninterrupted = open_study(folders[0])
    while trial := uninterrupted.next_trial():
        finish(uninterrupted, trial)
    for last in (3, 7, None):  # before and after TPE's random trials
        interrupted = open_study(folders[1])
        with interrupted.worker_lock():
            while trial := interrupted.next_trial():
                if len(interrupted.trials()) == last:
                    break  # the worker ends without a result of this trial
                finish(interrupted, trial)
    assert interrupted.is_done()
    assert parameters(interrupted) == parameters(uninterrupted)
    assert len({str(p) for p in parameters(uninterrupted)}) == 8
    assert len(interrupted.study.trials) == 10  # with the two unfinished ones


def test_only_trials_of_dead_workers_are_run_again(tmp_path: Path) -> None:
    dead, alive, third = (open_study(tmp_path) for _ in range(3))
    with alive.worker_lock(), third.worker_lock():
        with dead.worker_lock():
            orphan = dead.next_trial()
            orphan.set_user_attr("run", "runs/mine/001")
            running = alive.next_trial()
        retried = third.next_trial()
        assert retried.params == orphan.params
        assert retried.user_attrs["run"] == "runs/mine/001"
        assert third.next_trial().params != running.params
        assert [trial.number for trial in third.trials()] == [running.number, 2, 3]


def test_trial_whose_process_always_dies_fails(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tuning.study, "MAX_RETRIES", 2)
    for _ in range(6):
        study = open_study(tmp_path, trials=1)
        with study.worker_lock():
            if study.next_trial() is None:
                break
    assert study.is_done()
    assert len(study.study.trials) == 3
    assert study.trials()[-1].user_attrs["error"] == "its process died"


def test_concurrent_workers_run_the_requested_number_of_trials(tmp_path: Path) -> None:
    first, second = open_study(tmp_path, trials=5), open_study(tmp_path, trials=5)
    with first.worker_lock(), second.worker_lock():
        pairs = [(first.next_trial(), second.next_trial()) for _ in range(2)]
        for one, other in pairs:
            finish(first, one)
            finish(second, other)
        finish(first, first.next_trial())
        assert second.next_trial() is None
    assert len(second.study.trials) == 5
