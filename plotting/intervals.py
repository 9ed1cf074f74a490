"""Values with their confidence intervals, one panel per metric."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from engine.run.figures import BLUE

Interval = tuple[float, float, float]  # value, low, high


def intervals_figure(labels: Sequence[str], metrics: Mapping[str, Sequence[Interval]]) -> Figure:
    """Draw one row per label in each panel.

    Args:
        labels: Names of the rows, from above.
        metrics: Metric to the interval of each row.
    """
    figure = Figure(figsize=(1.8 + 2.2 * len(metrics), 1.0 + 0.32 * len(labels)))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    rows = range(len(labels))
    for axes, (metric, intervals) in zip(panels, metrics.items(), strict=True):
        values = [value for value, _, _ in intervals]
        below = [value - low for value, low, _ in intervals]
        above = [high - value for value, _, high in intervals]
        axes.errorbar(values, rows, xerr=(below, above), fmt="o", color=BLUE, capsize=2, ms=4)
        axes.set_title(metric)
        axes.grid(axis="x")
    panels[0].set_yticks(rows, labels)
    panels[0].invert_yaxis()
    return figure
