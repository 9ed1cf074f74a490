"""Draw runs side by side and tell what they share and where they differ.

    python -m scripts.compare runs/mnist-cnn_plain/001 runs/mnist-cnn_augmented/001
    python -m scripts.compare runs/digits-mlp/* --output comparisons/learning-rates

Prints a table (sizes, times, final metrics, then every key of the configs that differs) and writes
it as comparison.md beside comparison.png: loss and main metric, over steps and over seconds. A run
is called by its experiment, or by what it does differently from the others.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console

from callbacks.figures.training_curves import (
    Series,
    draw_series,
    read_metrics,
    use_log_scale_where_wide,
)
from engine.errors import exit_on_user_error
from engine.run.config_differences import differences
from engine.run.figures import INK, render
from engine.run.tables import console_table, markdown_table

# Where a run was told to be kept, which tells nothing of what it does.
PLACES = ("config", "experiment", "runs_dir", "resume", "ckpt_path", "data.init_args.data_dir")
LOOKS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": "--", "linewidth": 0.9},
    "val": {"linestyle": "-"},
}
FACTS = {
    "net": "net",
    "parameters": "parameters",
    "epochs": "epochs",
    "steps": "steps",
    "seconds": "seconds",
    "samples_per_second": "samples/s",
    "tokens_per_second": "tokens/s",
}


@dataclass
class Run:
    """What a run folder tells."""

    folder: Path
    config: dict[str, Any]
    series: Series
    results: dict[str, Any]  # empty for a run that was stopped
    label: str = ""

    @property
    def seconds_a_step(self) -> float | None:
        """Its mean speed; None where the run did not end."""
        if not self.results.get("steps") or not self.results.get("seconds"):
            return None
        return float(self.results["seconds"]) / int(self.results["steps"])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m scripts.compare", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders, two or more")
    where = "where figure and table go (comparison/ beside the experiments)"
    add("--output", type=Path, metavar="FOLDER", help=where)
    return made


def main(args: list[str] | None = None) -> Path:
    """Run the command line; the same from Python: `main(["runs/a/001", "runs/b/001"])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The folder with figure and table.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    with exit_on_user_error("compare"):
        folders = [folder.resolve() for folder in options.runs]
        if len(set(folders)) != len(folders) or len(folders) < 2:
            raise MisconfigurationException("name two or more runs, each once.")
        runs = [read_run(folder) for folder in options.runs]
        metrics = common_metrics(runs)
        differing = what_differs(runs)
        for run, label in zip(runs, labels(runs, differing), strict=True):
            run.label = label
        rows = table_rows(runs, differing)
        head = ["", *(run.label for run in runs)]
        Console().print(console_table(head, rows))
        output: Path = options.output or folders[0].parent.parent / "comparison"
        output.mkdir(parents=True, exist_ok=True)
        png = render(lambda: comparison_figure(runs, metrics))
        (output / "comparison.png").write_bytes(png or b"")
        title = "# " + " · ".join(run.label for run in runs)
        table = markdown_table(head, rows)
        (output / "comparison.md").write_text(f"{title}\n\n![](comparison.png)\n\n{table}")
    print(f"look at, in {output}: comparison.md, comparison.png")
    return output


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        MisconfigurationException: If it is none.
    """
    if not (folder / "config.yaml").is_file():
        within = sorted(path.parent for path in folder.glob("*/config.yaml"))
        hint = f"Its runs are {', '.join(map(str, within[-5:]))}." if within else "Name one, as in "
        hint += "" if within else "runs/digits-cnn/001."
        raise MisconfigurationException(f"{folder} is no run folder: no config.yaml. {hint}")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        results_file = folder / "results.json"
        results = json.loads(results_file.read_text()) if results_file.is_file() else {}
        # What is logged when all steps are done is the best checkpoint's, of an earlier step.
        end = results.get("steps", float("inf"))
        series = {
            name: {step: value for step, value in points.items() if step < end}
            for name, points in read_metrics(folder / "metrics.csv").items()
        }
        series = {name: points for name, points in series.items() if points}
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise MisconfigurationException(f"{folder} is damaged: {error}") from error
    return Run(folder, config, series, results)


def common_metrics(runs: Sequence[Run]) -> list[str]:
    """The metrics to draw, without their stage: loss, and the main one of the others."""
    logged = [
        {
            metric
            for stage, _, metric in (name.partition("/") for name in run.series)
            if stage in LOOKS and metric
        }
        for run in runs
    ]
    common = set.intersection(*logged)
    if not common:
        told = "; ".join(
            f"{run.folder} logged {', '.join(sorted(metrics)) or 'nothing'}"
            for run, metrics in zip(runs, logged, strict=True)
        )
        raise MisconfigurationException(f"these runs have no metric of training in common: {told}.")
    others = sorted(common - {"loss"}, key=lambda metric: (metric != "accuracy", metric))
    return [*(["loss"] if "loss" in common else []), *others[:1]]


def what_differs(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Keys of the configs and their values in each run, where these are not all the same."""
    found = {}
    for key, values in differences([run.config for run in runs]).items():
        if key in PLACES or key.split(".")[0] == "expect":
            continue
        if key == "trainer.callbacks":  # many, mostly the same: only what some lack
            classes = [[_class_name(callback) for callback in value or []] for value in values]
            everywhere = set.intersection(*map(set, classes))
            values = [[c for c in value if c not in everywhere] or None for value in classes]
            if not any(values):
                continue
        found[".".join(part for part in key.split(".") if part != "init_args")] = values
    return found


def _class_name(callback: Any) -> str:
    path = callback.get("class_path") if isinstance(callback, dict) else callback
    return str(path).rpartition(".")[2]


def labels(runs: Sequence[Run], differing: dict[str, list[Any]]) -> list[str]:
    """A name for each run: of its experiment, or of what differs, or else of its folder."""
    experiments = [run.folder.resolve().parent.name for run in runs]
    if len(set(experiments)) == len(runs):
        return experiments
    if 1 <= len(differing) <= 3:
        same = len(set(experiments)) == 1
        told = [
            ("" if same else f"{experiment}: ")
            + ", ".join(f"{key.rpartition('.')[2]} {show(v[i])}" for key, v in differing.items())
            for i, experiment in enumerate(experiments)
        ]
        if len(set(told)) == len(runs):
            return told
    return [f"{e}/{run.folder.resolve().name}" for e, run in zip(experiments, runs, strict=True)]


def show(value: Any) -> str:
    """A value for a cell or a legend."""
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    return text if len(text) <= 40 else text[:39] + "…"


def table_rows(runs: Sequence[Run], differing: dict[str, list[Any]]) -> list[list[str]]:
    """A row a fact, a column a run: the run, its metrics, and what differs in the configs."""
    rows = [["run folder", *(str(run.folder) for run in runs)]]
    for key, name in FACTS.items():
        values = [run.results.get(key) for run in runs]
        if any(value is not None for value in values):
            cells = (
                f"{v:,}" if isinstance(v, int) else f"{v:,.1f}" if isinstance(v, float) else show(v)
                for v in values
            )
            rows.append([name, *cells])
    for metric in sorted({name for run in runs for name in _final(run)}, key=_reading_order):
        finals = (_final(run).get(metric) for run in runs)
        rows.append([metric, *("–" if value is None else f"{value:.4f}" for value in finals)])
    rows += [[key, *map(show, values)] for key, values in differing.items()]
    return rows


def _final(run: Run) -> dict[str, float]:
    """The results of a run, or the last that a stopped one logged; no metrics of single classes."""
    found = run.results.get("metrics") or {
        name: [*points.values()][-1] for name, points in run.series.items()
    }
    return {
        name: value
        for name, value in found.items()
        if name.split("/")[0] in ("train", "val", "test") and name.count("/") == 1
    }


def _reading_order(metric: str) -> tuple[int, int, str]:
    stage, _, name = metric.partition("/")
    stages, first = ("train", "val", "test"), ("loss", "accuracy")
    return stages.index(stage), first.index(name) if name in first else len(first), name


def comparison_figure(runs: Sequence[Run], metrics: Sequence[str]) -> Figure:
    """A row a metric; over steps to the left, over seconds to the right where runs tell them."""
    timed = any(run.seconds_a_step for run in runs)
    figure = Figure(figsize=(10 if timed else 6, 0.8 + 2.9 * len(metrics)))
    grid = figure.subplots(len(metrics), 2 if timed else 1, squeeze=False)
    cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    many = [*colormaps["viridis"](np.linspace(0, 0.9, len(runs)))]
    colors = cycle if len(runs) <= len(cycle) else many
    for metric, row in zip(metrics, grid, strict=True):
        _draw(row[0], runs, metric, colors, [1.0] * len(runs))
        row[0].set_ylabel(metric)
        row[0].set_xlabel("step")
        if timed:
            _draw(row[1], runs, metric, colors, [run.seconds_a_step for run in runs])
            row[1].set_xlabel("seconds, at the mean speed of a run")
    lines = [Line2D([], [], color=c, label=r.label) for c, r in zip(colors, runs, strict=False)]
    stages = [Line2D([], [], color=INK, label=stage, **looks) for stage, looks in LOOKS.items()]
    figure.legend(
        handles=[*lines, *stages], loc="outside upper center", ncols=min(len(runs) + 2, 5)
    )
    return figure


def _draw(
    axes: Axes,
    runs: Sequence[Run],
    metric: str,
    colors: Sequence[Any],
    scales: Sequence[float | None],
) -> None:
    seen: list[float] = []
    for run, color, scale in zip(runs, colors, scales, strict=False):
        for stage, looks in LOOKS.items():
            points = run.series.get(f"{stage}/{metric}", {})
            if points and scale is not None:
                places = [step * scale for step in points]
                draw_series(axes, places, [*points.values()], True, color=color, **looks)
                seen += points.values()
    if metric == "loss":
        use_log_scale_where_wide(axes, seen)
    axes.grid()


if __name__ == "__main__":
    main()
