"""The report of an evaluation: tables, figures and results.json."""

import argparse
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from engine.run.figures import render
from engine.run.tables import markdown_table
from plotting.confusion_matrix import confusion_figure
from plotting.denormalize import to_displayable
from plotting.mistakes import image_mistakes_figure, mistakes_text, text_mistakes_figure
from plotting.reliability_diagram import reliability_figure, sums_by_confidence
from scripts.evaluation.predictions import COLUMNS, Evaluation
from scripts.evaluation.statistics import (
    BINS,
    McNemar,
    confusion,
    mcnemar,
    metrics_of,
    per_class_metrics,
)
from scripts.evaluation.threshold_curves import threshold_figure


class Report:
    """Tables and figures of one or more checkpoints evaluated on the same examples."""

    def __init__(
        self, evaluations: dict[str, Evaluation], split: str, options: argparse.Namespace
    ) -> None:
        self.evaluations, self.split, self.options = evaluations, split, options
        self.labels = next(iter(evaluations.values())).labels
        self.tests: dict[tuple[str, str], McNemar] = {
            (a, b): mcnemar(evaluations[a].logits, evaluations[b].logits, self.labels)
            for a, b in combinations(evaluations, 2)
        }

    def tables(self, names: list[str]) -> list[tuple[str, list[str], list[list[str]]]]:
        """Return title, header and rows of each table."""
        share = f"{self.options.confidence:.0%}"
        size = f"{len(self.labels):,} examples of {self.split}"
        metrics = [
            [metric, *(str(evaluation.metrics[metric]) for evaluation in self.evaluations.values())]
            for metric in metrics_of(len(names))
        ]
        tables = [(f"Metrics on {size}, {share} intervals", ["metric", *self.evaluations], metrics)]
        calibration = [
            [
                name,
                f"{evaluation.before[0]:.4f}",
                f"{evaluation.before[1]:.4f}",
                "—" if evaluation.temperature is None else f"{evaluation.temperature:.3f}",
                *(f"{x:.4f}" for x in evaluation.after or ()),
            ]
            for name, evaluation in self.evaluations.items()
        ]
        header = ["checkpoint", "loss", "ECE", "temperature", "loss after", "ECE after"]
        tables.append(("Calibration", header[: len(calibration[0])], calibration))
        header = ["class", "precision", "recall", "f1", "support"]
        for name, evaluation in self.evaluations.items():
            classes = zip(
                names, per_class_metrics(evaluation.logits, evaluation.labels), strict=True
            )
            rows = [
                [label, *(f"{row[key]:.4f}" for key in header[1:4]), f"{row['support']:,}"]
                for label, row in classes
            ]
            tables.append((f"Classes: {name}", header, rows))
        if self.tests:
            rows = [
                [a, b, str(test.only_first), str(test.only_second), f"{test.p_value:.3g}"]
                for (a, b), test in self.tests.items()
            ]
            header = ["first", "second", "only first correct", "only second correct", "p"]
            tables.append(("McNemar's test, exact", header, rows))
        return tables

    def write(self, folder: Path, data: Any) -> None:
        """Write report.md, results.json and the figures."""
        names = [str(name) for name in data.class_names]
        self.written_tables = self.tables(names)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# {' and '.join(self.evaluations)}", "", *self.explanation()]
        for title, header, rows in self.written_tables:
            lines += ["", f"## {title}", "", markdown_table(header, rows).rstrip("\n")]
        for name, evaluation in self.evaluations.items():
            lines += ["", f"## Figures: {name}", ""]
            for title, draw in figures(evaluation, names, data).items():
                path = folder / name / f"{title}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(render(draw) or b"")
                lines.append(f"![{title.replace('_', ' ')}]({name}/{title}.png)")
            if evaluation.texts is not None:
                wrong = int((evaluation.logits.argmax(dim=1) != evaluation.labels).sum())
                text = mistakes_text(evaluation.texts, len(evaluation.labels), wrong)
                (folder / name / "mistakes.txt").write_text(text, encoding="utf-8")
        (folder / "report.md").write_text("\n".join(lines) + "\n")
        (folder / "results.json").write_text(json.dumps(self.as_data(names), indent=2) + "\n")

    def explanation(self) -> list[str]:
        """Return the introduction of the report."""
        paths = ", ".join(f"`{path}`" for path in self.options.checkpoint)
        lines = [
            f"Checkpoints: {paths}. In brackets: {self.options.confidence:.0%} percentile "
            f"intervals of {self.options.resamples:,} bootstrap resamples of these examples."
        ]
        if self.split == "val":
            return [
                *lines,
                "No temperature scaling: it is fitted on the validation split, evaluated here.",
            ]
        return [*lines, "The temperature was fitted on the validation split."]

    def as_data(self, names: list[str]) -> dict[str, Any]:
        """Return all results as JSON values."""
        paths = [str(path) for path in self.options.checkpoint]
        return {
            "split": self.split,
            "examples": len(self.labels),
            "class_names": names,
            "resamples": self.options.resamples,
            "confidence": self.options.confidence,
            "checkpoints": {
                name: {
                    "path": path,
                    "metrics": {metric: x._asdict() for metric, x in evaluation.metrics.items()},
                    "classes": dict(
                        zip(
                            names,
                            per_class_metrics(evaluation.logits, evaluation.labels),
                            strict=True,
                        )
                    ),
                    "confusion_matrix": confusion(evaluation.logits, evaluation.labels).tolist(),
                    "temperature": evaluation.temperature,
                    "before": dict(zip(("loss", "ece"), evaluation.before, strict=True)),
                    "after": evaluation.after
                    and dict(zip(("loss", "ece"), evaluation.after, strict=True)),
                }
                for path, (name, evaluation) in zip(paths, self.evaluations.items(), strict=True)
            },
            "mcnemar": [
                {"first": a, "second": b, **test._asdict()} for (a, b), test in self.tests.items()
            ],
        }

    def print(self) -> None:
        """Print the tables; those with more than 20 rows are in the report only."""
        for title, header, rows in self.written_tables:
            if len(rows) > 20:
                continue
            table = Table(title=title, title_justify="left", box=None, header_style="bold")
            for number, name in enumerate(header):
                table.add_column(name, justify="right" if number else "left", overflow="fold")
            for row in rows:
                table.add_row(*row)
            Console().print(table)


def figures(evaluation: Evaluation, names: list[str], data: Any) -> dict[str, Callable[[], Figure]]:
    """Return the functions that draw each figure, by file name."""
    logits, labels, worst = evaluation.logits, evaluation.labels, evaluation.worst
    drawn: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_figure(confusion(logits, labels), names),
        "threshold_curves": lambda: threshold_figure(logits, labels, names),
        "reliability_diagram": lambda: reliability_figure(
            *sums_by_confidence(logits, labels, BINS).numpy()
        ),
    }
    if evaluation.temperature is not None:
        scaled = logits / evaluation.temperature
        drawn["reliability_diagram_scaled"] = lambda: reliability_figure(
            *sums_by_confidence(scaled, labels, BINS).numpy()
        )
    totals = len(labels), int((logits.argmax(dim=1) != labels).sum())
    if evaluation.texts is not None:
        passages = evaluation.texts
        drawn["mistakes"] = lambda: text_mistakes_figure(passages, *totals)
    if worst is not None:
        images = to_displayable(
            worst.samples, getattr(data, "mean", None), getattr(data, "std", None)
        )
        drawn["mistakes"] = lambda: image_mistakes_figure(images, worst, names, COLUMNS, *totals)
    return drawn
