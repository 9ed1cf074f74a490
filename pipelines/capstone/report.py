"""Write the report of the capstone as JSON and HTML, and the slides that present it."""

import base64
import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from matplotlib.figure import Figure

from engine.run.figures import BLUE, GREEN, ORANGE, render
from pipelines.files import write_json

PAGES = Path(__file__).parent / "page"
Report = dict[str, Any]
Curve = list[tuple[int, float]]  # step and loss


class ReportFigure(NamedTuple):
    """A figure of the report and of a slide."""

    title: str
    text: str  # what it shows
    png: str  # base64


def learning_curve(folder: Path) -> Curve:
    """Return the training loss by step of the newest run of an experiment."""
    runs = sorted(folder.glob("[0-9]*/metrics.csv"), key=lambda path: int(path.parent.name))
    curve = []
    if runs:
        with runs[-1].open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                loss = row.get("train/loss") or row.get("train/loss_step")
                if loss:
                    curve.append((int(float(row["step"])), round(float(loss), 4)))
    return curve


def write(report: Report, folder: Path) -> None:
    """Write report.json, report.html and slides.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report)
    figures = draw_figures(report)
    environment = jinja2.Environment(autoescape=True)  # answers are untrusted text
    environment.filters["number"] = number
    for name in ("report.html", "slides.html"):
        template = environment.from_string((PAGES / name).read_text(encoding="utf-8"))
        text = template.render(report=report, figures=figures, metrics=report["metrics"])
        (folder / name).write_text(text, encoding="utf-8")


def number(value: Any) -> str:
    """Return a metric as text: three significant digits, integers as they are."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_figures(report: Report) -> list[ReportFigure]:
    """Draw the figures of a report; one without data is left out."""
    drawn: Sequence[tuple[str, str, Callable[[Report], Figure | None]]] = (
        ("Training", "Training loss of encoder, reader and guard.", curves_figure),
        ("Retrieval and answers", "Fractions of the questions with known answers.", answers_figure),
        (
            "Known and unknown questions",
            "Scores of questions that the documents answer, and of others. Below the threshold the "
            "answer is “not in the documents”.",
            scores_figure,
        ),
        ("Load", "Latency of the load test by percentile.", latency_figure),
        ("Time", "Seconds of each stage.", seconds_figure),
    )
    made = []
    for title, text, draw in drawn:
        png = render(partial(draw, report))
        if png is not None:
            made.append(ReportFigure(title, text, base64.b64encode(png).decode()))
    return made


def curves_figure(report: Report) -> Figure | None:
    """Draw the training losses side by side."""
    curves = {name: curve for name, curve in report["curves"].items() if curve}
    if not curves:
        return None
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    for axes, (name, curve) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        axes.plot(*zip(*curve, strict=True), color=BLUE, marker="." if len(curve) < 8 else None)
        axes.set(title=name, xlabel="step")
    figure.axes[0].set_ylabel("loss")
    return figure


def answers_figure(report: Report) -> Figure:
    """Draw the fractions of retrieval, answers and abstention as bars."""
    names = {
        "retrieval/recall@1": "answer in the first passage",
        "retrieval/recall@5": "answer in five passages",
        "sentence/contains": "best sentence has the answer",
        "reader/contains": "reader's answer has the answer",
        "reader/f1": "token F1 of the reader",
        "abstention/auroc": "AUROC of known against unknown",
    }
    shown = {
        text: report["metrics"][name] for name, text in names.items() if name in report["metrics"]
    }
    figure = Figure(figsize=(7, 0.4 * len(shown) + 0.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([*shown], [*shown.values()], color=BLUE)
    axes.bar_label(bars, [f"{value:.2f}" for value in shown.values()], padding=3)
    axes.set(xlim=(0, 1.1))
    axes.invert_yaxis()
    return figure


def scores_figure(report: Report) -> Figure:
    """Draw the scores of known and unknown questions, in order."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for is_known, color, label in ((True, BLUE, "known"), (False, ORANGE, "unknown")):
        scores = sorted(
            r["score"] for r in report["questions"] if (r["expected"] is not None) == is_known
        )
        axes.plot(np.linspace(0, 1, len(scores)), scores, ".", color=color, label=label)
    answered = [row["score"] for row in report["questions"] if row["answered"]]
    if answered:
        axes.axhline(min(answered), color=GREEN, linewidth=1, label="lowest answered")
    axes.set(
        xlabel="questions, in order of their score", ylabel="score", ylim=(-0.02, 1.02), xticks=[]
    )
    axes.legend(loc="center right")
    return figure


def latency_figure(report: Report) -> Figure | None:
    """Draw the latencies of the load test by percentile."""
    latencies = report["latencies_ms"]
    if not latencies:
        return None
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.linspace(0, 100, len(latencies)), latencies, color=BLUE)
    axes.set(xlabel="percentile", ylabel="ms", ylim=(0, None))
    return figure


def seconds_figure(report: Report) -> Figure:
    """Draw the seconds of each stage as bars."""
    seconds = {name: value for name, value in report["seconds"].items() if name != "this run"}
    figure = Figure(figsize=(7, 0.32 * len(seconds) + 0.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([*seconds], [*seconds.values()], color=BLUE)
    axes.bar_label(bars, [f"{value:,.0f}" for value in seconds.values()], padding=3)
    axes.set(xlabel="seconds")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    return figure
