"""How a run went: loss, metrics and learning rate against steps, read from its metrics.csv."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.checkpoint.writing import find_checkpoints
from engine.run.figures import BLUE, GREEN, INK, ORANGE, publish

STAGES = {"train": BLUE, "val": ORANGE, "test": GREEN}
Series = dict[str, dict[int, float]]  # column → step → value


class TrainingCurves(Callback):
    """Draws `figures/training_curves.png` when fit ends, also when it is interrupted.

    A panel for each metric logged as `<stage>/<metric>` and one for the learning rate; dots mark
    the best validation: by what `checkpoint.monitor` names, or else the lowest `val/loss`.
    Needs a CSVLogger among the trainer's loggers.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        if stage == "fit" and not dry and _csv_logger(trainer) is None:
            rank_zero_warn(
                "TrainingCurves draws nothing: it reads metrics.csv, and no logger of this trainer "
                "writes one. Add lightning.pytorch.loggers.CSVLogger to trainer.logger."
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logger = _csv_logger(trainer)
        if logger is None:
            return
        logger.save()  # rows since the last flush are still in memory
        file = Path(logger.log_dir) / "metrics.csv"
        monitor, mode = _monitored(trainer)
        publish(
            trainer, "training_curves", lambda: curves_figure(read_metrics(file), monitor, mode)
        )

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        # Of several processes perhaps only this one failed: it must not wait for the others.
        if trainer.state.fn == TrainerFn.FITTING and trainer.world_size == 1:
            self.on_fit_end(trainer, pl_module)


def read_metrics(file: Path) -> Series:
    """Reads a CSVLogger's metrics.csv into {column: {step: value}}, steps in ascending order.

    A step that was logged twice, as after a resume, counts with its later row. Values that are not
    finite are left out, and a file that does not exist is an empty run.
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
    """Draws a panel a metric, the loss first; None when nothing was logged.

    Args:
        series: What `read_metrics` gave.
        monitor: The column whose best point is marked.
        mode: "min" or "max".
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
        large = index == 0
        row, column = divmod(index + columns - 1, columns)
        axes = figure.add_subplot(grid[0, :] if large else grid[row, column])
        _draw_panel(axes, title, lines, best)
    if best is not None:
        figure.suptitle(f"Best {monitor} {series[monitor][best]:.4g} at step {best:,}")
    return figure


def _panels(series: Series) -> dict[str, Series]:
    panels: dict[str, Series] = {}
    for column in sorted(series, key=lambda name: (not name.endswith("/loss"), name)):
        stage, slash, metric = column.partition("/")
        if slash and stage in STAGES:
            panels.setdefault(metric, {})[stage] = series[column]
    for column in sorted(series):
        if column.startswith("lr-"):  # LearningRateMonitor: lr-AdamW, lr-AdamW/pg2, …
            panels.setdefault("learning rate", {})[column.removeprefix("lr-")] = series[column]
        elif column.startswith("optimizer/learning_rate"):  # callbacks.LearningRate
            group = column.removeprefix("optimizer/learning_rate").removeprefix("/")
            panels.setdefault("learning rate", {})[group or "all layers"] = series[column]
    return panels


def _draw_panel(axes: Axes, title: str, lines: Series, best: int | None) -> None:
    for index, (name, points) in enumerate(lines.items()):
        color = STAGES.get(name, f"C{index}")
        draw_series(axes, [*points], [*points.values()], name in STAGES, color=color, label=name)
        if name == "val" and best in points:
            axes.plot(best, points[best], "o", markersize=9, fillstyle="none", color=INK)
            train = list(lines.get("train", {}).values())
            lowest, highest = min(points.values()), max(points.values())
            below = (  # neither onto the other curve nor into the title
                (bool(train) and train[-1] > points[best])
                or points[best] > lowest + 0.9 * (highest - lowest)
            )
            axes.annotate(
                f"{points[best]:.4g}",
                (best, points[best]),
                (0, -9 if below else 9),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=8,
            )
    if title == "loss":
        use_log_scale_where_wide(axes, [v for points in lines.values() for v in points.values()])
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid()
    axes.legend()


def draw_series(
    axes: Axes, places: Sequence[float], values: Sequence[float], noisy: bool, **looks: Any
) -> None:
    """Draw a line, with dots where it has few points.

    Args:
        axes: Where.
        places: Steps or seconds.
        values: What was logged there.
        noisy: Whether many values are one a batch: the mean of the neighbours then tells the trend,
            and the values themselves are pale.
        **looks: For `axes.plot`.
    """
    line = np.asarray(values)
    if noisy and len(line) > 100:
        axes.plot(places, line, **{**looks, "label": None, "alpha": 0.25, "linewidth": 0.7})
        line = _running_mean(line, len(line) // 25)
    axes.plot(places, line, **{"marker": "o" if len(line) <= 20 else "", "markersize": 3, **looks})


def use_log_scale_where_wide(axes: Axes, values: Sequence[float]) -> None:
    """A loss that falls by a factor of 30 is drawn in powers."""
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    kernel = np.ones(width)
    counts = np.convolve(np.ones_like(values), kernel, mode="same")
    return np.convolve(values, kernel, mode="same") / counts


def _csv_logger(trainer: Trainer) -> CSVLogger | None:
    return next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)


def _monitored(trainer: Trainer) -> tuple[str, str]:
    checkpoints = find_checkpoints(trainer)
    if checkpoints and checkpoints.monitor and checkpoints.mode:
        return checkpoints.monitor, checkpoints.mode
    return "val/loss", "min"
