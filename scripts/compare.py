"""Compare runs: a figure of their metrics and a table of results and config differences.

    python -m scripts.compare runs/mnist-cnn_plain/001 runs/mnist-cnn_augmented/001
    python -m scripts.compare runs/digits-mlp/* --output comparisons/learning-rates

Print a table (sizes, times, final metrics, then every key of the configs that differs) and write it
as comparison.md beside comparison.png: loss and main metric against steps and seconds. The label of
a run is its experiment, or the config values in which it differs from the others.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output
from engine.run.config_differences import differences
from engine.run.figures import INK, render
from engine.run.tables import console_table, markdown_table
from plotting.curves import (
    Series,
    draw_series,
    read_metrics,
    set_log_scale_if_wide,
)

# Config keys that say where a run is stored, not what it does.
LOCATION_KEYS = (
    "config",
    "experiment",
    "runs_dir",
    "resume",
    "ckpt_path",
    "data.init_args.data_dir",
)
LINE_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linestyle": "--", "linewidth": 0.9},
    "val": {"linestyle": "-"},
}
RESULT_ROWS = {
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
    """Contents of a run folder."""

    folder: Path
    config: dict[str, Any]
    series: Series
    results: dict[str, Any]  # empty for an unfinished run
    label: str = ""

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time per step; None for an unfinished run."""
        if not self.results.get("steps") or not self.results.get("seconds"):
            return None
        return float(self.results["seconds"]) / int(self.results["steps"])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.compare", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="two or more run folders")
    output = "folder for figure and table (default: comparison/ beside the experiments)"
    add("--output", type=Path, metavar="FOLDER", help=output)
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["runs/a/001", "runs/b/001"])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        The folder with figure and table.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    with exit_on_user_error("compare"):
        folders = [folder.resolve() for folder in options.runs]
        if len(set(folders)) != len(folders) or len(folders) < 2:
            raise UserError("expected two or more different run folders.")
        runs = [read_run(folder) for folder in options.runs]
        metrics = common_metrics(runs)
        changed = config_differences(runs)
        for run, label in zip(runs, labels(runs, changed), strict=True):
            run.label = label
        rows = table_rows(runs, changed)
        head = ["", *(run.label for run in runs)]
        Console().print(console_table(head, rows))
        output: Path = options.output or folders[0].parent.parent / "comparison"
        output.mkdir(parents=True, exist_ok=True)
        png = render(lambda: comparison_figure(runs, metrics))
        (output / "comparison.png").write_bytes(png or b"")
        title = "# " + " · ".join(run.label for run in runs)
        table = markdown_table(head, rows)
        (output / "comparison.md").write_text(f"{title}\n\n![](comparison.png)\n\n{table}")
    print(f"Comparison ({output}): comparison.md, comparison.png")
    return output


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: If it is not a run folder.
    """
    if not (folder / "config.yaml").is_file():
        within = sorted(path.parent for path in folder.glob("*/config.yaml"))
        runs = ", ".join(map(str, within[-5:])) or "runs/digits-cnn/001, for example"
        raise UserError(
            f"{folder} is not a run folder (it has no config.yaml). Did you mean {runs}?"
        )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        results_file = folder / "results.json"
        results = json.loads(results_file.read_text()) if results_file.is_file() else {}
        # Values logged at the last step are those of the best checkpoint, from an earlier step.
        end = results.get("steps", float("inf"))
        series = {
            name: {step: value for step, value in points.items() if step < end}
            for name, points in read_metrics(folder / "metrics.csv").items()
        }
        series = {name: points for name, points in series.items() if points}
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is damaged: {error}") from error
    return Run(folder, config, series, results)


def common_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the metrics to draw, without their stage: the loss, and one other."""
    logged = [
        {
            metric
            for stage, _, metric in (name.partition("/") for name in run.series)
            if stage in LINE_STYLES and metric
        }
        for run in runs
    ]
    common = set.intersection(*logged)
    if not common:
        logged_metrics = "; ".join(
            f"{run.folder} logged {', '.join(sorted(metrics)) or 'nothing'}"
            for run, metrics in zip(runs, logged, strict=True)
        )
        raise UserError(f"these runs have no metric in common: {logged_metrics}.")
    others = sorted(common - {"loss"}, key=lambda metric: (metric != "accuracy", metric))
    return [*(["loss"] if "loss" in common else []), *others[:1]]


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the config keys whose values differ between runs, with the value of each run."""
    found = {}
    for key, values in differences([run.config for run in runs]).items():
        if key in LOCATION_KEYS or key.split(".")[0] == "expect":
            continue
        if key == "trainer.callbacks":  # list only the callbacks that some runs lack
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


def labels(runs: Sequence[Run], changed: dict[str, list[Any]]) -> list[str]:
    """Return a label for each run: its experiment, else the values that differ, else its folder."""
    experiments = [run.folder.resolve().parent.name for run in runs]
    if len(set(experiments)) == len(runs):
        return experiments
    if 1 <= len(changed) <= 3:
        same = len(set(experiments)) == 1
        described = [
            ("" if same else f"{experiment}: ")
            + ", ".join(
                f"{key.rpartition('.')[2]} {format_value(v[i])}" for key, v in changed.items()
            )
            for i, experiment in enumerate(experiments)
        ]
        if len(set(described)) == len(runs):
            return described
    return [f"{e}/{run.folder.resolve().name}" for e, run in zip(experiments, runs, strict=True)]


def format_value(value: Any) -> str:
    """Format a config value for a table cell or a legend."""
    if value is None:
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    return text if len(text) <= 40 else text[:39] + "…"


def table_rows(runs: Sequence[Run], changed: dict[str, list[Any]]) -> list[list[str]]:
    """Return the rows of the table: results, metrics and config differences, one column per run."""
    rows = [["run folder", *(str(run.folder) for run in runs)]]
    for key, name in RESULT_ROWS.items():
        values = [run.results.get(key) for run in runs]
        if any(value is not None for value in values):
            cells = (
                f"{v:,}"
                if isinstance(v, int)
                else f"{v:,.1f}"
                if isinstance(v, float)
                else format_value(v)
                for v in values
            )
            rows.append([name, *cells])
    for metric in sorted({name for run in runs for name in _final(run)}, key=_metric_order):
        finals = (_final(run).get(metric) for run in runs)
        rows.append([metric, *("–" if value is None else f"{value:.4f}" for value in finals)])
    rows += [[key, *map(format_value, values)] for key, values in changed.items()]
    return rows


def _final(run: Run) -> dict[str, float]:
    """Return the final metrics of a run, or the last logged ones; no per-class metrics."""
    found = run.results.get("metrics") or {
        name: [*points.values()][-1] for name, points in run.series.items()
    }
    return {
        name: value
        for name, value in found.items()
        if name.split("/")[0] in ("train", "val", "test") and name.count("/") == 1
    }


def _metric_order(metric: str) -> tuple[int, int, str]:
    stage, _, name = metric.partition("/")
    stages, first = ("train", "val", "test"), ("loss", "accuracy")
    return stages.index(stage), first.index(name) if name in first else len(first), name


def comparison_figure(runs: Sequence[Run], metrics: Sequence[str]) -> Figure:
    """Draw one row per metric, against steps on the left and seconds on the right."""
    timed = any(run.seconds_per_step for run in runs)
    figure = Figure(figsize=(10 if timed else 6, 0.8 + 2.9 * len(metrics)))
    grid = figure.subplots(len(metrics), 2 if timed else 1, squeeze=False)
    cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    gradient = [*colormaps["viridis"](np.linspace(0, 0.9, len(runs)))]
    colors = cycle if len(runs) <= len(cycle) else gradient
    for metric, row in zip(metrics, grid, strict=True):
        _draw(row[0], runs, metric, colors, [1.0] * len(runs))
        row[0].set_ylabel(metric)
        row[0].set_xlabel("step")
        if timed:
            _draw(row[1], runs, metric, colors, [run.seconds_per_step for run in runs])
            row[1].set_xlabel("seconds (steps times mean seconds per step)")
    lines = [Line2D([], [], color=c, label=r.label) for c, r in zip(colors, runs, strict=False)]
    stages = [
        Line2D([], [], color=INK, label=stage, **style) for stage, style in LINE_STYLES.items()
    ]
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
    values: list[float] = []
    for run, color, scale in zip(runs, colors, scales, strict=False):
        for stage, style in LINE_STYLES.items():
            points = run.series.get(f"{stage}/{metric}", {})
            if points and scale is not None:
                xs = [step * scale for step in points]
                draw_series(axes, xs, [*points.values()], True, color=color, **style)
                values += points.values()
    if metric == "loss":
        set_log_scale_if_wide(axes, values)
    axes.grid()


if __name__ == "__main__":
    main()
