"""Compare evaluations of the same questions: a table and a figure with bootstrap intervals."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import UserError
from engine.run.figures import render
from engine.run.tables import markdown_table
from plotting.intervals import intervals_figure
from retrieval.metrics import bootstrap_interval

METRICS = (
    *("recall@1", "recall@5", "ndcg@10", "mrr", "sentence/recall@1"),
    *("reader/f1", "answer/em", "answer/f1", "citation/precision", "answer/grounded"),
)


@dataclass(frozen=True)
class Comparison:
    """Evaluations of the same questions, in the order given.

    Args:
        labels: One per evaluation.
        scores: Metric to one array (N,) per evaluation, for the metrics that all have.
    """

    labels: Sequence[str]
    scores: dict[str, list[np.ndarray]]

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: one per metric, with differences to the first evaluation."""
        found = []
        for metric, columns in self.scores.items():
            cells = [metric]
            for column in columns:
                cells.append(_shown(column))
                if column is not columns[0]:
                    cells[-1] += f"; {_shown(column - columns[0], sign='+')}"
            found.append(cells)
        return found

    def write(self, folder: Path) -> None:
        """Write comparison.md and comparison.png."""
        folder.mkdir(parents=True, exist_ok=True)
        intervals = {
            metric: [(float(column.mean()), *bootstrap_interval(column)) for column in columns]
            for metric, columns in self.scores.items()
        }
        png = render(lambda: intervals_figure(self.labels, intervals))
        (folder / "comparison.png").write_bytes(png or b"")
        table = markdown_table(["", *self.labels], self.rows())
        text = f"# {' · '.join(self.labels)}\n\n![](comparison.png)\n\n{EXPLANATION}\n\n{table}"
        (folder / "comparison.md").write_text(text, encoding="utf-8")


EXPLANATION = (
    "Means with 95% bootstrap intervals over the questions; after the semicolon the difference "
    "from the first column, question by question."
)


def read_comparison(folders: Sequence[Path]) -> Comparison:
    """Read run folders of `rag.py evaluate`.

    Raises:
        UserError: If there are fewer than two, one is damaged, or the questions differ.
    """
    if len({folder.resolve() for folder in folders}) != len(folders) or len(folders) < 2:
        raise UserError("expected two or more different run folders.")
    runs = [_read(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if [one["question"] for one in run] != [one["question"] for one in runs[0]]:
            raise UserError(f"{folder} was evaluated on other questions than {folders[0]}.")
    common = [
        metric for metric in METRICS if all(metric in question for run in runs for question in run)
    ]
    scores = {
        metric: [np.array([question[metric] for question in run]) for run in runs]
        for metric in common
    }
    return Comparison([f"{one.resolve().parent.name}/{one.name}" for one in folders], scores)


def _read(folder: Path) -> list[dict[str, float]]:
    path = folder / "questions.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is not a run folder of rag.py evaluate, or damaged: {error}."
        ) from error


def _shown(values: np.ndarray, sign: str = "") -> str:
    low, high = bootstrap_interval(values)
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
