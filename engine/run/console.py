"""What a run says on the console: what begins, and how it ended against its promises."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.table import Table

from engine.run.expectations import is_met
from engine.run.record import count_parameters, describe_machine

STAGES = ("train", "val", "test")


class TrainingHeader(L.Callback):
    """One line at the start of a training: which net, how large, on which data and machine.

    Args:
        why_precision: The trait of the machine that chose the precision; empty if the user did.
    """

    def __init__(self, why_precision: str) -> None:
        self.why_precision = why_precision

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        net = getattr(pl_module, "net", pl_module)
        because = f" ({self.why_precision})" if self.why_precision else ""
        data = type(trainer.datamodule or pl_module).__name__  # type: ignore[attr-defined]
        _say(
            f"{type(net).__name__} with {count_parameters(net):,} parameters learns {data}, precision "
            f"{trainer.precision}{because}, {describe_machine(trainer)}"
        )
        if summary := getattr(trainer.datamodule, "summary", None):  # type: ignore[attr-defined]
            _say(f"{data}: {summary}")


def print_summary(metrics: Mapping[str, float], promises: Mapping[str, str], folder: Path) -> None:
    """Print a small table, the pictures and samples that were made, and the run folder last.

    Args:
        metrics: The final metrics, `<stage>/<metric>`.
        promises: Metric to promise.
        folder: The run folder.
    """
    if metrics:
        Console().print(_table({**dict.fromkeys(promises), **metrics}, promises))
    for place, kinds in (
        ("figures", ("*.png", "*.html")),
        ("samples", ("*.txt",)),
        (".", ("predictions.csv", "predictions.txt")),
    ):
        if names := sorted(f.name for kind in kinds for f in (folder / place).glob(kind)):
            _say(f"look at, in {folder / place}: {', '.join(names)}")
    _say(f"run folder: {folder}")


def _table(metrics: Mapping[str, float | None], promises: Mapping[str, str]) -> Table:
    # Metrics of single classes, test/f1/shirt, are in results.json.
    pairs = [name.split("/") for name in metrics if name.count("/") == 1]
    stages = [stage for stage in STAGES if any(stage == pair[0] for pair in pairs)]
    table = Table("metric", box=None, header_style="bold")
    for stage in stages:
        table.add_column(stage, justify="right")
    if promises:
        table.add_column("promised")
    for metric in dict.fromkeys(pair[1] for pair in pairs):
        row: list[Any] = [metric]
        for stage in stages:
            value = metrics.get(f"{stage}/{metric}")
            row.append("" if value is None else f"{value:.4f}")
        verdicts = []
        for stage in stages:
            if promise := promises.get(f"{stage}/{metric}"):
                value = metrics.get(f"{stage}/{metric}")
                good = value is not None and is_met(promise, value)
                colour, word = ("green", "kept") if good else ("bold red", "BROKEN")
                verdicts.append(f"{stage} {promise} [{colour}]{word}[/]")
        table.add_row(*row, *([", ".join(verdicts)] if promises else []))
    return table


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)
