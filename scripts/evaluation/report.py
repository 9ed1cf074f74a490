"""Tables, figures and plain values of what is known about one or more checkpoints."""

import argparse
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from callbacks.figures.confusion_matrix import confusion_figure
from callbacks.figures.mistakes import as_text, mistaken_texts_figure, mistakes_figure
from callbacks.figures.reliability_diagram import reliability_figure, sums_by_confidence
from engine.run.figures import render
from engine.run.tables import markdown_table
from plotting.denormalize import to_displayable
from scripts.evaluation.look import COLUMNS, Look
from scripts.evaluation.statistics import (
    BINS,
    McNemar,
    confusion,
    mcnemar,
    metrics_of,
    of_each_class,
)
from scripts.evaluation.threshold_curves import threshold_figure


class Report:
    """Tables and figures of one or more looks at the same examples."""

    def __init__(self, looks: dict[str, Look], split: str, options: argparse.Namespace) -> None:
        self.looks, self.split, self.options = looks, split, options
        self.labels = next(iter(looks.values())).labels
        self.tests: dict[tuple[str, str], McNemar] = {
            (a, b): mcnemar(looks[a].logits, looks[b].logits, self.labels)
            for a, b in combinations(looks, 2)
        }

    def tables(self, names: list[str]) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each table."""
        share = f"{self.options.confidence:.0%}"
        size = f"{len(self.labels):,} examples of {self.split}"
        metrics = [
            [metric, *(str(look.metrics[metric]) for look in self.looks.values())]
            for metric in metrics_of(len(names))
        ]
        tables = [(f"Metrics on {size}, {share} intervals", ["metric", *self.looks], metrics)]
        calibration = [
            [
                name,
                f"{look.before[0]:.4f}",
                f"{look.before[1]:.4f}",
                "—" if look.temperature is None else f"{look.temperature:.3f}",
                *(f"{x:.4f}" for x in look.after or ()),
            ]
            for name, look in self.looks.items()
        ]
        header = ["checkpoint", "loss", "ECE", "temperature", "loss after", "ECE after"]
        tables.append(("Calibration", header[: len(calibration[0])], calibration))
        header = ["class", "precision", "recall", "f1", "support"]
        for name, look in self.looks.items():
            classes = zip(names, of_each_class(look.logits, look.labels), strict=True)
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
            header = ["first", "second", "only first right", "only second right", "p"]
            tables.append(("McNemar's test, exact", header, rows))
        return tables

    def write(self, folder: Path, data: Any) -> None:
        """report.md, results.json and the figures."""
        names = [str(name) for name in data.class_names]
        self.told = self.tables(names)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# {' and '.join(self.looks)}", "", *self.explanation()]
        for title, header, rows in self.told:
            lines += ["", f"## {title}", "", markdown_table(header, rows).rstrip("\n")]
        for name, look in self.looks.items():
            lines += ["", f"## Figures: {name}", ""]
            for title, draw in figures(look, names, data).items():
                path = folder / name / f"{title}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(render(draw) or b"")
                lines.append(f"![{title.replace('_', ' ')}]({name}/{title}.png)")
            if look.texts is not None:
                wrong = int((look.logits.argmax(dim=1) != look.labels).sum())
                told = as_text(look.texts, [len(look.labels), wrong])
                (folder / name / "mistakes.txt").write_text(told, encoding="utf-8")
        (folder / "report.md").write_text("\n".join(lines) + "\n")
        (folder / "results.json").write_text(json.dumps(self.as_data(names), indent=2) + "\n")

    def explanation(self) -> list[str]:
        paths = ", ".join(f"`{path}`" for path in self.options.checkpoint)
        lines = [
            f"Of {paths}. In brackets: where a figure lies for {self.options.confidence:.0%} of "
            f"{self.options.resamples:,} samples drawn from these examples with replacement."
        ]
        if self.split == "val":
            return [
                *lines,
                "No temperature: it is fitted on the validation split, which is looked at here.",
            ]
        return [*lines, "The temperature was fitted on the validation split."]

    def as_data(self, names: list[str]) -> dict[str, Any]:
        """Everything as plain values."""
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
                    "metrics": {metric: x._asdict() for metric, x in look.metrics.items()},
                    "classes": dict(
                        zip(names, of_each_class(look.logits, look.labels), strict=True)
                    ),
                    "confusion_matrix": confusion(look.logits, look.labels).tolist(),
                    "temperature": look.temperature,
                    "before": dict(zip(("loss", "ece"), look.before, strict=True)),
                    "after": look.after and dict(zip(("loss", "ece"), look.after, strict=True)),
                }
                for path, (name, look) in zip(paths, self.looks.items(), strict=True)
            },
            "mcnemar": [
                {"first": a, "second": b, **test._asdict()} for (a, b), test in self.tests.items()
            ],
        }

    def print(self) -> None:
        """The tables on the console; many classes are left to the report."""
        for title, header, rows in self.told:
            if len(rows) > 20:
                continue
            table = Table(title=title, title_justify="left", box=None, header_style="bold")
            for number, name in enumerate(header):
                table.add_column(name, justify="right" if number else "left", overflow="fold")
            for row in rows:
                table.add_row(*row)
            Console().print(table)


def figures(look: Look, names: list[str], data: Any) -> dict[str, Callable[[], Figure]]:
    """What to draw, by name of file."""
    logits, labels, worst = look.logits, look.labels, look.worst
    drawn: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_figure(confusion(logits, labels), names),
        "threshold_curves": lambda: threshold_figure(logits, labels, names),
        "reliability_diagram": lambda: reliability_figure(
            *sums_by_confidence(logits, labels, BINS).numpy()
        ),
    }
    if look.temperature is not None:
        scaled = logits / look.temperature
        drawn["reliability_diagram_scaled"] = lambda: reliability_figure(
            *sums_by_confidence(scaled, labels, BINS).numpy()
        )
    tally = [len(labels), int((logits.argmax(dim=1) != labels).sum())]
    if look.texts is not None:
        passages = look.texts
        drawn["mistakes"] = lambda: mistaken_texts_figure(passages, tally)
    if worst is not None:
        pictures = to_displayable(
            worst.samples, getattr(data, "mean", None), getattr(data, "std", None)
        )
        drawn["mistakes"] = lambda: mistakes_figure(pictures, worst, names, COLUMNS, tally)
    return drawn
