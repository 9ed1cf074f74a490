"""Report of a study: a table, figures, and `best.yaml`, a config to train."""

import importlib
import inspect
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import optuna
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as draw
from rich.table import Table

from engine.run.figures import render
from engine.run.tables import console_table
from tuning.search import Search

if TYPE_CHECKING:
    from tuning.study import SharedStudy

ROWS = 20  # of the table, at most
FIGURES: dict[str, Callable[..., Axes]] = {
    "history": draw.plot_optimization_history,
    "importance": draw.plot_param_importances,
    "parallel_coordinates": draw.plot_parallel_coordinate,
}
ORDER = ("experiment", "seed_everything", "expect", "auto_precision", "model", "data", "trainer")


def show(value: Any) -> str:
    """Format a parameter or a metric."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def line(trial: FrozenTrial, metric: str) -> str:
    """Return one line about a finished trial."""
    parameters = ", ".join(f"{key} {show(value)}" for key, value in trial.params.items())
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    ended = {
        TrialState.COMPLETE: f"{metric} {show(trial.value)}",
        TrialState.PRUNED: f"pruned at {metric} {show(trial.value)}",
        TrialState.FAIL: f"failed: {trial.user_attrs.get('error')}",
    }[trial.state]
    return f"trial {trial.number}: {ended} ({parameters}; {seconds:.1f} s)"


def table(trials: Sequence[FrozenTrial], search: Search) -> Table:
    """Return a table of the trials from best to worst, then the pruned and the failed ones."""
    sign = -1 if search.direction == "maximize" else 1
    kinds = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    finished = sorted(
        (trial for trial in trials if trial.state in kinds),
        key=lambda t: (kinds.index(t.state), sign * t.value if t.value is not None else 0.0),
    )
    rows = [
        [
            str(trial.number),
            Path(trial.user_attrs.get("run", "")).name,
            {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}.get(trial.state, ""),
            "" if trial.value is None else show(trial.value),
            *(show(trial.params.get(key, "")) for key in search.distributions),
            f"{trial.duration.total_seconds():.1f} s" if trial.duration else "",
        ]
        for trial in finished[:ROWS]
    ]
    names = [key.rpartition(".")[2] for key in search.distributions]
    columns = [
        name if names.count(name) == 1 else key
        for name, key in zip(names, search.distributions, strict=True)
    ]
    head = ["trial", "run", "", search.metric, *columns, "time"]
    return console_table(head, rows, numbers_from=3)


def preamble(shared: "SharedStudy", best: FrozenTrial, given: Sequence[str], file: Path) -> str:
    """Return the comment at the top of best.yaml."""
    states = [trial.state for trial in shared.trials()]
    pruned, failed = states.count(TrialState.PRUNED), states.count(TrialState.FAIL)
    metric, run = shared.search.metric, best.user_attrs["run"]
    return (
        f"# The best of {len(states)} trials ({pruned} pruned, {failed} failed) of the study "
        f"{shared.study.study_name}:\n"
        f"# trial {best.number} with {metric} {best.value:.6g}, run folder {run}. Found by\n"
        f"#   python tune.py {shlex.join(given)}\n"
        "# To train it again, and test it:\n"
        f"#   python train.py fit --config {file}\n"
    )


def write_figures(study: optuna.Study, folder: Path, metric: str) -> list[Path]:
    """Write those of Optuna's figures for which the study has enough trials."""
    written = []
    plt.switch_backend("Agg")  # no display is needed; Optuna draws with pyplot
    for name, plot in FIGURES.items():

        def figure(plot: Callable[..., Axes] = plot) -> Figure:
            return _styled(plot(study, target_name=metric).get_figure(root=True))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                png = render(figure)
            except (ValueError, RuntimeError):  # too few trials
                continue
            finally:
                plt.close("all")
        path = folder / f"{name}.png"
        path.write_bytes(png or b"")
        written.append(path)
    return written


def _styled(figure: Figure | None) -> Figure:
    """Restyle a figure of Optuna: white background, larger."""
    assert figure is not None  # it has just been drawn
    figure.set_size_inches(9, 5)
    for axes in figure.axes:
        axes.set_facecolor("white")
        axes.title.set_fontsize(11)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        if axes.get_xlabel() == "Trial":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def brief(config: Any) -> Any:
    """Remove arguments that equal the defaults of their class from a resolved config."""
    if isinstance(config, list):
        return [brief(item) for item in config]
    if not isinstance(config, dict):
        return config
    if not isinstance(path := config.get("class_path"), str):
        return {key: brief(value) for key, value in config.items()}
    module, _, name = path.rpartition(".")
    known = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    defaults = {key: parameter.default for key, parameter in known.items()}
    arguments = {
        key: brief(value)
        for key, value in config.get("init_args", {}).items()
        if key not in defaults or not _same(value, defaults[key])
    }
    return {"class_path": path, "init_args": arguments} if arguments else path


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return list(value) == list(default)
    return bool(value == default) and type(value) is type(default)


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a config as YAML in the usual order of keys, short lists and maps on one line."""
    known = {key: config[key] for key in ORDER if key in config}
    between = {key: value for key, value in config.items() if key not in known}
    trainer = {"trainer": known.pop("trainer")} if "trainer" in known else {}
    return yaml.safe_dump(
        {**known, **between, **trainer}, sort_keys=False, default_flow_style=None, width=100
    )
