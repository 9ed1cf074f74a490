"""Draw the statistics of layers.csv as heat maps."""

import csv
import math
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from engine.run.figures import INK

STATISTICS = {  # column of layers.csv → title
    "gradient_norm": "L2 norm of the gradient",
    "weight_norm": "L2 norm of the weights",
    "update_ratio": "L2 norm of the update / L2 norm of the weights",
    "dead_units": "fraction of dead ReLU units",
}
MAX_HEATMAP_COLUMNS = 300  # more columns than this become unreadably narrow
LayerStatistics = dict[str, dict[str, dict[int, float]]]  # statistic → layer → step → value


def read_layers(file: Path) -> LayerStatistics:
    """Read layers.csv; of a step measured twice, as after a resume, the later row counts."""
    statistics: LayerStatistics = {}
    if file.exists():
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                for statistic in STATISTICS:
                    if row[statistic]:
                        layer = statistics.setdefault(statistic, {}).setdefault(row["layer"], {})
                        layer[int(row["step"])] = float(row[statistic])
    return statistics


def layer_health_figure(statistics: LayerStatistics) -> Figure | None:
    """Draw one heat map per statistic: layers from top to bottom, steps from left to right."""
    if not statistics:
        return None
    heights = [max(0.16 * len(layers), 0.9) for layers in statistics.values()]
    figure = Figure(figsize=(9, sum(heights) + 0.9 * len(heights) + 0.3))
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (statistic, layers) in zip(panels, statistics.items(), strict=True):
        steps = sorted({step for values in layers.values() for step in values})
        table = np.array(
            [[values.get(step, math.nan) for step in steps] for values in layers.values()]
        )  # (layers, measurements)
        table, steps = _downsample(table, steps)
        colors = colormaps["OrRd" if statistic == "dead_units" else "viridis"]
        image = axes.imshow(
            np.ma.masked_invalid(table),
            aspect="auto",
            cmap=colors.with_extremes(bad=INK),
            norm=Normalize(0, 1) if statistic == "dead_units" else _log_norm(table),
        )
        axes.set_title(STATISTICS[statistic], loc="left")
        axes.spines[:].set_visible(False)
        every = math.ceil(len(layers) / 40)
        axes.set_yticks(range(0, len(layers), every), list(layers)[::every], fontsize=6)
        ticks = np.unique(np.linspace(0, len(steps) - 1, min(6, len(steps))).round().astype(int))
        axes.set_xticks(ticks, [f"{steps[tick]:,}" for tick in ticks])
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01).outline.set_visible(False)
    axes.set_xlabel("step")
    return figure


def _downsample(table: np.ndarray, steps: list[int]) -> tuple[np.ndarray, list[int]]:
    """Take the maximum of neighboring columns, so that peaks stay visible."""
    width = math.ceil(len(steps) / MAX_HEATMAP_COLUMNS)
    starts = range(0, len(steps), width)
    columns = [np.fmax.reduce(table[:, start : start + width], axis=1) for start in starts]
    return np.stack(columns, axis=1), [steps[start] for start in starts]


def _log_norm(table: np.ndarray) -> LogNorm:
    values = table[np.isfinite(table) & (table > 0)]
    low, high = (values.min(), values.max()) if len(values) else (1e-3, 1.0)
    return LogNorm(low, max(high, low * 1.01))
