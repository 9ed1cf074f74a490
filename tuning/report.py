"""Report a study: lines and a table for the console, best.yaml and figures."""

import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots
from rich.table import Table

from engine.run.figures import render
from engine.run.tables import console_table
from tuning.command import best_config
from tuning.search import Search
from tuning.study import SharedStudy

MAX_ROWS = 20  # of the table
STATES = {TrialState.COMPLETE: "", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
FIGURES: dict[str, Callable[..., Axes]] = {
    "history": plots.plot_optimization_history,
    "importance": plots.plot_param_importances,
    "parallel_coordinates": plots.plot_parallel_coordinate,
}


def format_value(value: Any) -> str:
    """Return a parameter or metric with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_trial(trial: FrozenTrial, metric: str) -> str:
    """Return one line about a finished trial."""
    parameters = ", ".join(f"{key} {format_value(value)}" for key, value in trial.params.items())
    result = {
        TrialState.COMPLETE: f"{metric} {format_value(trial.value)}",
        TrialState.PRUNED: f"pruned at {metric} {format_value(trial.value)}",
        TrialState.FAIL: f"failed: {trial.user_attrs.get('error')}",
    }[trial.state]
    return f"trial {trial.number} ({parameters}; {_duration(trial)}): {result}"


def trial_table(trials: Sequence[FrozenTrial], search: Search) -> Table:
    """Return a table of the trials: completed from best to worst, then pruned, then failed."""
    sign = -1 if search.direction == "maximize" else 1
    order = [*STATES]
    finished = sorted(
        (trial for trial in trials if trial.state in STATES),
        key=lambda t: (order.index(t.state), sign * t.value if t.value is not None else 0.0),
    )
    rows = [
        [
            str(trial.number),
            Path(trial.user_attrs.get("run", "")).name,
            STATES[trial.state],
            "" if trial.value is None else format_value(trial.value),
            *(format_value(trial.params.get(key, "")) for key in search.distributions),
            _duration(trial),
        ]
        for trial in finished[:MAX_ROWS]
    ]
    short = [key.rpartition(".")[2] for key in search.distributions]
    columns = [
        name if short.count(name) == 1 else key
        for name, key in zip(short, search.distributions, strict=True)
    ]
    head = ["trial", "run", "", search.metric, *columns, "time"]
    return console_table(head, rows, numbers_from=3)


def _duration(trial: FrozenTrial) -> str:
    return f"{trial.duration.total_seconds():.1f} s" if trial.duration else ""


def write_best_config(study: SharedStudy, arguments: Sequence[str], command: Sequence[str]) -> Path:
    """Write the config of the best trial to best.yaml in the study's folder.

    Args:
        study: A study with at least one completed trial.
        arguments: Arguments of train.py that all trials share.
        command: Arguments of tune.py, for the comment at the top.
    """
    path = study.folder / "best.yaml"
    best, name = study.study.best_trial, study.study.study_name
    states = [trial.state for trial in study.trials()]
    pruned, failed = states.count(TrialState.PRUNED), states.count(TrialState.FAIL)
    header = (
        f"# Best of {len(states)} trials ({pruned} pruned, {failed} failed) of the study {name}:\n"
        f"# trial {best.number}, {study.search.metric} {best.value:.6g}, run folder "
        f"{best.user_attrs['run']}. Found by\n"
        f"#   python tune.py {shlex.join(command)}\n"
        "# Train it again and test it:\n"
        f"#   python train.py fit --config {path}\n"
    )
    path.write_text(header + best_config(arguments, best.params, f"{name}-best"))
    return path


def write_figures(study: SharedStudy) -> list[Path]:
    """Write Optuna's figures to the study's folder, except those that need more trials."""
    paths = []
    plt.switch_backend("Agg")  # Optuna draws with pyplot; no display is needed
    for name, plot in FIGURES.items():

        def draw(plot: Callable[..., Axes] = plot) -> Figure:
            return _restyle(plot(study.study, target_name=study.search.metric))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                png = render(draw)
            except (ValueError, RuntimeError):  # too few completed trials for this figure
                continue
            finally:
                plt.close("all")
        path = study.folder / f"{name}.png"
        path.write_bytes(png or b"")
        paths.append(path)
    return paths


def _restyle(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.set_size_inches(9, 5)
    for axes in figure.axes:
        axes.set_facecolor("white")
        axes.title.set_fontsize(11)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        if axes.get_xlabel() == "Trial":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
