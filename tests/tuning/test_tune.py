"""A search trains ordinary runs, outlives its processes, and ends in a config."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import tune
import tuning.study
from tests.support import ROOT, TINY
from tuning.plan import Plan, best_config, check_parameters, read_plan
from tuning.search import read_search
from tuning.study import SharedStudy

SEARCH = """
maximize: val/accuracy
trials: 2
parameters:
  model.net.channels: {choice: [[4], [2, 4]]}
  model.optimizer.lr: {float: [0.001, 0.1], log: true}
"""
# A rate of 0 learns nothing and is pruned; at 1e30 the loss is NaN.
ROUGH = """
maximize: val/accuracy
trials: 3
sampler: {class_path: optuna.samplers.BruteForceSampler, init_args: {seed: 0}}
pruner: {class_path: optuna.pruners.ThresholdPruner, init_args: {lower: 0.15, n_warmup_steps: 1}}
parameters:
  model.optimizer.lr: {choice: [0.0, 0.01, 1.0e+30]}
"""
SAMPLER = "sampler: {class_path: optuna.samplers.TPESampler, init_args: {seed: 1}}\n"
BASE = ("--config", str(TINY), "--config", str(ROOT / "configs/optimizer/adamw.yaml"))
SEARCHES = sorted((ROOT / "configs/search").glob("*.yaml"))


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def command(search: Path, *more: str | Path) -> list[str]:
    runs = ("--runs_dir", search.parent / "runs")
    return [*BASE, *map(str, ("--search", search, *runs, *more))]


def results(run: str | Path) -> dict:
    return json.loads((Path(run) / "results.json").read_text())


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}").trials


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study that ended."""
    return tune.main(command(write(tmp_path_factory.mktemp("tune"), SEARCH)))


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with a good, a pruned and a diverged trial; validation counts steps."""
    search = write(tmp_path_factory.mktemp("tune"), ROUGH)
    interval = ("--trainer.val_check_interval", "5", "--trainer.check_val_every_n_epoch", "null")
    steps = ("--trainer.max_steps", "20", "--trainer.max_epochs", "-1")
    return tune.main(command(search, *interval, *steps))


def test_a_trial_is_an_ordinary_run_that_names_study_and_trial(study: Path) -> None:
    trials = trials_of(study)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        run = Path(trial.user_attrs["run"])
        assert run.parent == study.parent
        told = results(run)
        assert (told["study"], told["trial"]) == ("mine", trial.number)
        assert f"# trial: {trial.number}\n" in (run / "config.yaml").read_text()
        assert (
            told["config"]["model"]["init_args"]["optimizer"]["init_args"]["lr"]
            == (trial.params["model.optimizer.lr"])
        )
        assert told["metrics"]["val/accuracy"] == trial.value
        assert (run / "checkpoints/best.ckpt").exists()


def test_trials_never_look_at_the_test_set(study: Path) -> None:
    for trial in trials_of(study):
        names = results(trial.user_attrs["run"])["metrics"]
        assert "val/loss" in names
        assert not any(name.startswith("test/") for name in names)


def test_the_best_config_trains_to_the_value_of_its_trial(study: Path, run: Callable) -> None:
    best = max(trials_of(study), key=lambda trial: trial.value)
    text = (study / "best.yaml").read_text()
    assert f"# trial {best.number} with val/accuracy {best.value:.6g}, run folder" in text
    told = results(run("fit", "--config", study / "best.yaml"))
    assert told["metrics"]["val/accuracy"] == best.value
    assert "test/accuracy" in told["metrics"]
    assert told["config"]["experiment"] == "mine-best"


def test_a_study_leaves_its_figures(study: Path) -> None:
    for name in ("history", "importance", "parallel_coordinates"):
        assert (study / f"{name}.png").stat().st_size > 5000


def test_the_same_command_again_trains_no_more(study: Path, capsys) -> None:
    before = len(trials_of(study))
    tune.main(command(study.parent.parent.parent / "mine.yaml"))
    assert len(trials_of(study)) == before
    assert "best: trial" in capsys.readouterr().out


def test_another_search_on_the_same_study_is_refused(study: Path, tmp_path: Path, capsys) -> None:
    other = write(tmp_path, SEARCH.replace("0.001,", "0.002,"))
    where = ["--runs_dir", str(study.parent.parent)]
    with pytest.raises(SystemExit) as exit:
        tune.main([*BASE, "--search", str(other), *where])
    assert exit.value.code == 2
    told = capsys.readouterr().err
    assert "model.optimizer.lr" in told
    assert "--experiment NAME" in told


def test_a_pruned_trial_stops_training_and_leaves_a_whole_run(rough: Path) -> None:
    (pruned,) = [t for t in trials_of(rough) if t.state == TrialState.PRUNED]
    assert pruned.params["model.optimizer.lr"] == 0.0
    (kept,) = [t for t in trials_of(rough) if t.state == TrialState.COMPLETE]
    steps = [results(trial.user_attrs["run"])["steps"] for trial in (pruned, kept)]
    assert steps == [10, 20]  # n_warmup_steps is one validation
    assert list(pruned.intermediate_values) == [0, 1]
    assert list(kept.intermediate_values) == [0, 1, 2, 3]


def test_a_sampler_that_has_tried_everything_ends_the_study(tmp_path: Path) -> None:
    study = SharedStudy(tmp_path, read_search(write(tmp_path, ROUGH.replace("3", "9", 1))), {})
    with study.at_work():
        while trial := study.next_trial():
            study.study.tell(trial, 0.5)
    assert len(study.study.trials) == 3
    assert study.done()


def test_a_trial_that_diverges_is_recorded_and_the_study_goes_on(rough: Path) -> None:
    (failed,) = [t for t in trials_of(rough) if t.state == TrialState.FAIL]
    assert failed.params["model.optimizer.lr"] == 1e30
    assert "NaN or infinite" in failed.user_attrs["error"]
    assert len(trials_of(rough)) == 3


# The study itself, without trainings.


def shared(folder: Path, trials: int = 8) -> SharedStudy:
    early = SAMPLER.replace("seed: 1", "seed: 1, n_startup_trials: 4")
    text = early + SEARCH.replace("trials: 2", f"trials: {trials}")
    return SharedStudy(folder / "runs/mine/study", read_search(write(folder, text)), {"a": 1})


def finish(study: SharedStudy, trial: optuna.Trial) -> None:
    study.study.tell(trial, -abs(trial.params["model.optimizer.lr"] - 0.02))


def parameters(study: SharedStudy) -> list[dict]:
    return [trial.params for trial in study.trials()]


def test_a_study_that_was_stopped_suggests_what_it_would_have(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    whole = shared(folders[0])
    while trial := whole.next_trial():
        finish(whole, trial)
    for die_at in (3, 7, None):  # before and after TPE's random start
        stopped = shared(folders[1])
        with stopped.at_work():
            while trial := stopped.next_trial():
                if len(stopped.trials()) == die_at:
                    break  # taken, and never told of again
                finish(stopped, trial)
    assert stopped.done()
    assert parameters(stopped) == parameters(whole)
    assert len({str(p) for p in parameters(whole)}) == 8
    assert len(stopped.study.trials) == 10  # two of them are the dead ones


def test_the_trial_of_a_dead_worker_is_taken_over_and_that_of_a_living_is_not(tmp_path) -> None:
    dead, living, third = (shared(tmp_path) for _ in range(3))
    with living.at_work(), third.at_work():
        with dead.at_work():
            orphan = dead.next_trial()
            orphan.set_user_attr("run", "runs/mine/001")
            kept = living.next_trial()
        taken = third.next_trial()
        assert taken.params == orphan.params
        assert taken.user_attrs["run"] == "runs/mine/001"
        assert third.next_trial().params != kept.params
        assert [trial.number for trial in third.trials()] == [kept.number, 2, 3]


def test_a_trial_whose_process_always_dies_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tuning.study, "MAX_RETRIES", 2)
    for _ in range(6):
        study = shared(tmp_path, trials=1)
        with study.at_work():
            if study.next_trial() is None:
                break
    assert study.done()
    assert len(study.study.trials) == 3
    assert study.trials()[-1].user_attrs["error"] == "its process died"


def test_workers_that_take_turns_train_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    first, second = shared(tmp_path, trials=5), shared(tmp_path, trials=5)
    with first.at_work(), second.at_work():
        pairs = [(first.next_trial(), second.next_trial()) for _ in range(2)]
        for one, other in pairs:
            finish(first, one)
            finish(second, other)
        finish(first, first.next_trial())
        assert second.next_trial() is None
    assert len(second.study.trials) == 5


# What a search file says.


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("model.optimizer.lr", "model.optimiser.lr", ["'optimiser'", "'optimizer'"]),
        ("model.optimizer.lr", "model.optimizer.lrr", ["'lrr'", "Did you mean 'lr'"]),
        ("model.net.channels", "model.net.chanels", ["'chanels'", "'channels'", "CNN"]),
        ("[2, 4]", "many", ["channels", "many"]),
        ("trials", "trails", ["'trails'", "Did you mean 'trials'"]),
        ("trials: 2", "trials: 0", ["trials is 0"]),
        ("val/accuracy", "val/acuracy", ["val/acuracy", "Did you mean 'val/accuracy'", "val/loss"]),
        ("val/accuracy", "test/accuracy", ["test/accuracy", "val/accuracy"]),
        ("trials:", "minimize: val/loss\ntrials:", ["one line", "maximize: val/accuracy"]),
        ("0.001,", "1e-3,", ["'1e-3'", "1.0e-3"]),
        ("[0.001, 0.1]", "[0.1, 0.001]", ["model.optimizer.lr", "0.001"]),
        ("log: true", "lag: true", ["float takes", "'lag'", "log"]),
        ("float: [0.001, 0.1], log: true", "range: 3", ["{float: [0.0001, 0.1], log: true}"]),
        ("[[4], [2, 4]]", "[]", ["choice needs a list"]),
        ("trials:", "pruner: optuna.pruners.NopPrune\ntrials:", ["NopPrune'", "'NopPruner'"]),
        ("trials:", SAMPLER.replace("seed", "sed") + "trials:", ["'sed'", "'seed'"]),
        ("maximize", "maximize: {", ["no valid YAML"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_search_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, capsys, old: str, new: str, names: list[str]
) -> None:
    assert old in SEARCH
    refuse(command(write(tmp_path, SEARCH.replace(old, new))), names, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--workers", "0"], ["--workers is 0"]),
        (["--trainer.devices", "2"], ["one device", "--workers"]),
        (["--trainer.fast_dev_run", "true"], ["fast_dev_run"]),
        (["--trainer.max_epoch", "2"], ["max_epoch'", "max_epochs"]),
        (["--resume", "runs/mine/001"], ["same command"]),
        (["--search", "nowhere.yaml"], ["nowhere.yaml", "can't be read"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_nothing_is_written(
    tmp_path: Path, capsys, more: list[str], names: list[str]
) -> None:
    refuse(command(write(tmp_path, SEARCH), *more), names, capsys)
    assert not (tmp_path / "runs").exists()


def refuse(arguments: list[str], names: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as exit:
        tune.main(arguments)
    assert exit.value.code == 2
    told = capsys.readouterr().err.strip()
    assert told.count("tune.py: error:") == 1
    assert 40 < len(told) < 900
    for name in names:
        assert name in told


def test_a_key_that_a_later_choice_would_undo_is_refused(tmp_path: Path, capsys) -> None:
    optimizers = "  model.optimizer: {choice: [torch.optim.SGD, torch.optim.AdamW]}\n"
    refuse(
        command(write(tmp_path, SEARCH + optimizers)),
        ["model.optimizer.lr", "does not reach the config", "before it"],
        capsys,
    )
    place = SEARCH.index("  model.optimizer.lr")
    right = SEARCH[:place] + optimizers + SEARCH[place:]
    check_parameters(read_search(write(tmp_path, right)), BASE, tmp_path)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: s.stem)
def test_a_search_fits_the_config_that_its_comment_names(search: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    comment = "".join(line[1:] for line in search.open() if line.startswith("#"))
    assert search.read_text().startswith("# Day 8")
    told = re.search(r"python tune\.py (.*?[^\\])\n", comment, re.DOTALL)[1].replace("\\\n", " ")
    options, arguments = tune.parser().parse_known_args(shlex.split(told))
    assert options.search.resolve() == search
    plan = read_plan(arguments, options.search)
    check_parameters(read_search(options.search), plan.arguments, options.search)


@pytest.mark.parametrize(
    "config", ["digits/cnn", "mnist/cnn_augmented", "shakespeare/gpt_small_cpu"]
)
def test_a_best_config_says_all_that_differs_from_the_defaults(config: str, tmp_path: Path) -> None:
    """The brief config resolves to what the long command line did."""
    arguments = ["--config", str(ROOT / f"configs/{config}.yaml"), "--seed_everything", "3"]
    parameters = {"model.optimizer.lr": 1e-05, "data.batch_size": 24}
    file = write(tmp_path, best_config(arguments, parameters, "x"))
    flags = ["--model.optimizer.lr", "1e-05", "--data.batch_size", "24"]
    assert (
        Plan.of(["fit", "--config", str(file)]).shared
        == Plan.of(["fit", *arguments, *flags]).shared
    )
    assert len(file.read_text().splitlines()) < 40


# Processes.


@pytest.mark.slow
def test_a_killed_study_goes_on_in_the_run_that_was_under_way(tmp_path: Path) -> None:
    arguments = command(write(tmp_path, SEARCH), "--trainer.max_epochs", "30")
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
def test_two_workers_stop_at_a_signal_and_go_on(tmp_path: Path) -> None:
    search = write(tmp_path, SEARCH.replace("trials: 2", "trials: 4"))
    arguments = command(search, "--trainer.max_epochs", "30", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, ROOT / "tune.py", *arguments], text=True, stderr=subprocess.PIPE
    )
    for run in ("001", "002"):
        wait_for(tmp_path / f"runs/mine/{run}/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    assert "The same command goes on" in process.communicate()[1]
    assert process.returncode == 75
    before = trials_of(tmp_path / "runs/mine/study")
    assert len({trial.user_attrs["worker"] for trial in before}) == 2
    trials = trials_of(tune.main(arguments))
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(done) == 4
    assert len({trial.user_attrs["run"] for trial in done}) == 4
    assert all(results(trial.user_attrs["run"])["epochs"] == 30 for trial in done)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, "the study has ended before"
        assert time.monotonic() < until
        time.sleep(0.05)
