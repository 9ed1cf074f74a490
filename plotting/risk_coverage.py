"""Risk against coverage of answers that are given only above a threshold of their score.

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification", JMLR 11.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from engine.run.figures import INK


def risk_coverage_figure(
    scores: np.ndarray, wrong: Mapping[str, np.ndarray], threshold: float
) -> Figure:
    """Draw the fraction of wrong answers among those given, for every threshold.

    Args:
        scores: (N,) score of each question.
        wrong: Label to (N,): 1 if the answer to the question would be wrong, 0 if right.
        threshold: Its coverage is marked.
    """
    figure = Figure(figsize=(5.5, 3.6))
    axes = figure.subplots()
    order = np.argsort(-scores, kind="stable")
    given = np.arange(1, len(scores) + 1)
    chosen = max(int((scores >= threshold).sum()), 1)
    for label, errors in wrong.items():
        risk = errors[order].cumsum() / given
        at_threshold = f"{label}: {risk[chosen - 1]:.1%} wrong"
        (line,) = axes.plot(given / len(scores), risk, label=at_threshold)
        axes.plot(chosen / len(scores), risk[chosen - 1], "o", color=line.get_color())
    axes.axvline(
        chosen / len(scores),
        color=INK,
        linewidth=0.8,
        linestyle=(0, (4, 3)),
        label=f"threshold {threshold:.2f}: {chosen / len(scores):.1%} answered",
    )
    axes.set(xlabel="questions that are answered", ylabel="wrong among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid()
    axes.legend(loc="upper left")
    return figure
