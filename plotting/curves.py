"""Read metrics.csv and draw its metrics against the step."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from engine.run.expectations import STAGE_AND_METRIC
from engine.run.figures import BLUE, GREEN, INK, ORANGE

STAGES = {"train": BLUE, "val": ORANGE, "test": GREEN}
Series = dict[str, dict[int, float]]  # column → step → value


def read_metrics(file: Path) -> Series:
    """Read a CSVLogger's metrics.csv into {column: {step: value}}, with ascending steps.

    Of a step logged twice, as after a resume, the later row counts. Values that are not finite are
    omitted; a file that does not exist has no metrics.
    """
    series: Series = {}
    if not file.exists():
        return series
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            for column, text in row.items():
                if column != "step" and text and math.isfinite(value := float(text)):
                    series.setdefault(column, {})[int(row["step"])] = value
    return {column: dict(sorted(points.items())) for column, points in series.items()}


def curves_figure(series: Series, monitor: str, mode: str) -> Figure | None:
    """Draw one panel per metric, the loss first; return None if nothing was logged.

    Args:
        series: The metrics, see `read_metrics`.
        monitor: The column whose best value is marked.
        mode: `min` or `max`.
    """
    panels = _panels(series)
    if not panels:
        return None
    best = None
    if monitor in series:
        points = series[monitor]
        best = (min if mode == "min" else max)(points, key=points.__getitem__)

    columns = min(3, max(len(panels) - 1, 1))
    rows = 1 + math.ceil((len(panels) - 1) / columns)
    figure = Figure(figsize=(9, 3.4 + 2.3 * (rows - 1)))
    grid = figure.add_gridspec(rows, columns, height_ratios=[1.5] + [1.0] * (rows - 1))
    for index, (title, lines) in enumerate(panels.items()):
        row, column = divmod(index + columns - 1, columns)
        axes = figure.add_subplot(grid[0, :] if index == 0 else grid[row, column])
        _draw_panel(axes, title, lines, best)
    if best is not None:
        # The logged step counts from zero, the console's from one.
        figure.suptitle(f"Best {monitor} {series[monitor][best]:.4g} at step {best + 1:,}")
    return figure


def _panels(series: Series) -> dict[str, Series]:
    """Return the lines of each panel: metric → stage → values."""
    panels: dict[str, Series] = {}
    for column in sorted(series, key=lambda name: (not name.endswith(("/loss", "_loss")), name)):
        if match := STAGE_AND_METRIC.fullmatch(column):
            panels.setdefault(match[2], {})[match[1]] = series[column]
        elif "/" not in column and column != "epoch" and not column.startswith("lr-"):
            panels[column] = {column: series[column]}  # of a task that names its metrics otherwise
    for column in sorted(series):
        if column.startswith("lr-"):  # LearningRateMonitor: lr-AdamW, lr-AdamW/pg2, …
            panels.setdefault("learning rate", {})[column.removeprefix("lr-")] = series[column]
        elif column.startswith("optimizer/learning_rate"):  # callbacks.LearningRate
            group = column.removeprefix("optimizer/learning_rate").removeprefix("/")
            panels.setdefault("learning rate", {})[group or "all parameters"] = series[column]
    return panels


def _draw_panel(axes: Axes, title: str, lines: Series, best: int | None) -> None:
    for index, (name, points) in enumerate(lines.items()):
        color = STAGES.get(name, f"C{index}")
        draw_series(axes, [*points], [*points.values()], name in STAGES, color=color, label=name)
        if name == "val" and best in points:
            value = points[best]
            circle: dict[str, Any] = {"markersize": 9, "fillstyle": "none", "color": INK}
            axes.plot(best, value, "o", **circle, label=f"best: {value:.4g}")
    if title == "loss":
        set_log_scale_if_wide(axes, [v for points in lines.values() for v in points.values()])
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.grid()
    axes.legend()


def draw_series(
    axes: Axes, x: Sequence[float], values: Sequence[float], noisy: bool, **style: Any
) -> None:
    """Draw a line, with markers if it has few points.

    Args:
        axes: Axes to draw on.
        x: Steps or seconds.
        values: Logged values.
        noisy: Whether values are those of single batches; many of them are drawn pale below their
            running mean.
        **style: Arguments of `axes.plot`.
    """
    line = np.asarray(values)
    if noisy and len(line) > 100:
        axes.plot(x, line, **{**style, "label": None, "alpha": 0.25, "linewidth": 0.7})
        line = _running_mean(line, len(line) // 25)
    axes.plot(x, line, **{"marker": "o" if len(line) <= 20 else "", "markersize": 3, **style})


def set_log_scale_if_wide(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic y axis if positive values differ by more than a factor of 30."""
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    kernel = np.ones(width)
    counts = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / counts
