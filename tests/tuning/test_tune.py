"""tune.py trains ordinary runs, continues after interruptions and writes a config of the best."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

import tune
from tests.support import ROOT
from tests.support.studies import (
    BASE,
    SEARCH,
    THREE_OUTCOMES,
    results,
    trials_of,
    tune_arguments,
    write,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished study."""
    return tune.main(tune_arguments(write(tmp_path_factory.mktemp("tune"), SEARCH)))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study with a completed, a pruned and a failed trial, validated every 5 steps."""
    search = write(tmp_path_factory.mktemp("tune"), THREE_OUTCOMES)
    interval = ("--trainer.val_check_interval", "5", "--trainer.check_val_every_n_epoch", "null")
    steps = ("--trainer.max_steps", "20", "--trainer.max_epochs", "-1")
    return tune.main(tune_arguments(search, *interval, *steps))


def test_help_does_not_import_torch() -> None:
    code = "import sys, tune\ntry: tune.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_trial_is_a_run_that_records_study_and_trial(study: Path) -> None:
    trials = trials_of(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        run = Path(trial.user_attrs["run"])
        assert run.parent == study.parent
        record = results(run)
        assert (record["study"], record["trial"]) == ("mine", trial.number)
        assert f"# trial: {trial.number}\n" in (run / "config.yaml").read_text()
        optimizer = record["config"]["model"]["init_args"]["optimizer"]
        assert optimizer["init_args"]["lr"] == trial.params["model.optimizer.lr"]
        assert record["metrics"]["val/accuracy"] == trial.value
        assert (run / "checkpoints/best.ckpt").exists()


def test_trials_are_not_tested(study: Path) -> None:
    for trial in trials_of(study):
        names = results(trial.user_attrs["run"])["metrics"]
        assert "val/loss" in names
        assert not any(name.startswith("test/") for name in names)


def test_best_config_reproduces_the_metric_of_its_trial(study: Path, run: Callable) -> None:
    best = max(trials_of(study), key=lambda trial: trial.value)
    text = (study / "best.yaml").read_text()
    assert f"# trial {best.number}, val/accuracy {best.value:.6g}, run folder" in text
    record = results(run("fit", "--config", study / "best.yaml"))
    assert record["metrics"]["val/accuracy"] == best.value
    assert "test/accuracy" in record["metrics"]
    assert record["config"]["experiment"] == "mine-best"


def test_study_writes_figures(study: Path) -> None:
    for name in ("history", "importance", "parallel_coordinates"):
        assert (study / f"{name}.png").stat().st_size > 5000


def test_finished_study_runs_no_more_trials(study: Path, capsys) -> None:
    before = len(trials_of(study))
    tune.main(tune_arguments(study.parent.parent.parent / "mine.yaml"))
    assert len(trials_of(study)) == before
    assert "best trial: " in capsys.readouterr().out


def test_changed_search_cannot_continue_a_study(study: Path, tmp_path: Path, capsys) -> None:
    other = write(tmp_path, SEARCH.replace("0.001,", "0.002,"))
    with pytest.raises(SystemExit) as exit:
        tune.main([*BASE, "--search", str(other), "--runs_dir", str(study.parent.parent)])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert "model.optimizer.lr" in message
    assert "--experiment NAME" in message


@pytest.mark.slow
def test_pruned_trial_stops_early_with_all_files(outcomes: Path) -> None:
    (pruned,) = [t for t in trials_of(outcomes) if t.state == TrialState.PRUNED]
    assert pruned.params["model.optimizer.lr"] == 0.0
    (completed,) = [t for t in trials_of(outcomes) if t.state == TrialState.COMPLETE]
    steps = [results(trial.user_attrs["run"])["steps"] for trial in (pruned, completed)]
    assert steps == [10, 20]  # n_warmup_steps is one validation
    assert list(pruned.intermediate_values) == [0, 1]
    assert list(completed.intermediate_values) == [0, 1, 2, 3]


def test_diverged_trial_fails_and_the_study_continues(outcomes: Path) -> None:
    (failed,) = [t for t in trials_of(outcomes) if t.state == TrialState.FAIL]
    assert failed.params["model.optimizer.lr"] == 1e30
    assert "NaN or infinite" in failed.user_attrs["error"]
    assert len(trials_of(outcomes)) == 3


@pytest.mark.slow
def test_killed_study_resumes_the_run_of_its_unfinished_trial(tmp_path: Path) -> None:
    arguments = tune_arguments(write(tmp_path, SEARCH), "--trainer.max_epochs", "30")
    process = subprocess.Popen([sys.executable, ROOT / "tune.py", *arguments])
    wait_for(tmp_path / "runs/mine/002/checkpoints/last.ckpt", process)
    process.kill()
    process.wait()
    assert not (tmp_path / "runs/mine/002/results.json").exists()
    killed = trials_of(tmp_path / "runs/mine/study")[-1]
    assert killed.state == TrialState.RUNNING
    trials = trials_of(tune.main(arguments))
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials[2].params == killed.params
    assert trials[2].user_attrs["run"] == str(tmp_path / "runs/mine/002")
    assert results(tmp_path / "runs/mine/002")["epochs"] == 30
    assert sorted(trials[2].intermediate_values) == list(range(30))


@pytest.mark.slow
def test_workers_stop_at_a_signal_and_resume(tmp_path: Path) -> None:
    search = write(tmp_path, SEARCH.replace("trials: 2", "trials: 4"))
    arguments = tune_arguments(search, "--trainer.max_epochs", "30", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, ROOT / "tune.py", *arguments], text=True, stderr=subprocess.PIPE
    )
    for run in ("001", "002"):
        wait_for(tmp_path / f"runs/mine/{run}/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].count("Run the same command to continue the study") == 1
    assert process.returncode == 75
    before = trials_of(tmp_path / "runs/mine/study")
    assert len({trial.user_attrs["worker"] for trial in before}) == 2
    trials = trials_of(tune.main(arguments))
    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(completed) == 4
    assert len({trial.user_attrs["run"] for trial in completed}) == 4
    assert all(results(trial.user_attrs["run"])["epochs"] == 30 for trial in completed)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, "the study ended before"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_trials_are_nested_runs_of_one_run_at_mlflow(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    search = write(tmp_path, SEARCH)
    folder = tune.main(tune_arguments(search, "--config", ROOT / "configs/logger/mlflow.yaml"))
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("stepladder").experiment_id])
    (parent,) = [run for run in runs if "study" in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    logged = client.get_metric_history(parent.info.run_id, "val/accuracy")
    assert {metric.step: metric.value for metric in logged} == {
        trial.number: trial.value for trial in trials_of(folder)
    }
