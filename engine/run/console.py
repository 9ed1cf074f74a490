"""Console output of a run: a header, a line per validation in logs, and a summary at the end."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from engine.run.expectations import STAGE_AND_METRIC, Judgment
from engine.run.record import count_parameters, describe_devices

COLUMNS = {"train": "train (last epoch)", "val": "val", "test": "test", "": "logged"}
COLORS = {"met": "green", "not met": "bold red"}
SMALL = 1_000_000  # parameters; several threads rarely help a smaller network on a busy machine


class TrainingHeader(L.Callback):
    """Print the network, its size, the data, the precision and the devices when training starts.

    Args:
        precision_reason: Why `auto_precision` chose the precision; empty if the user did.
    """

    def __init__(self, precision_reason: str) -> None:
        self.precision_reason = precision_reason

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        net = getattr(pl_module, "net", pl_module)
        parameters = count_parameters(net)
        trained = count_parameters(net, trainable_only=True)
        share = f", {trained:,} of them trained" if trained < parameters else ""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        data = type(datamodule).__name__ if datamodule is not None else "its own data"
        reason = f" ({self.precision_reason})" if self.precision_reason else ""
        _print(
            f"Training {type(net).__name__} ({parameters:,} parameters{share}) on {data}"
            f" · precision {trainer.precision}{reason} · {describe_devices(trainer)}"
        )
        if summary := getattr(datamodule, "summary", None):
            _print(f"{type(datamodule).__name__}: {summary}")
        if trainer.strategy.root_device.type == "cpu" and parameters < SMALL:
            _print_thread_hint()


def _print_thread_hint() -> None:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if torch.get_num_threads() > 1 and load > cores / 2:
        _print(
            f"This machine is busy (load {load:.1f} on {cores} cores): a network of this size "
            "trains faster with one thread, OMP_NUM_THREADS=1."
        )


class ValidationLines(L.Callback):
    """Print one plain line per validation where no progress bar is visible, as in a job's log."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        progress_bar: Any = trainer.progress_bar_callback
        if progress_bar is not None and progress_bar.is_enabled:
            return
        metrics = trainer.callback_metrics
        cells = _cells(metrics)
        names = [name for stage, name in cells.items() if stage == ("train", "loss")]
        validated = [name for (stage, _), name in cells.items() if stage in ("val", "")]
        names += sorted(validated, key=lambda name: not name.endswith("loss"))
        values = [f"{name} {metrics[name].item():.4f}" for name in names]
        if values:
            steps = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
            _print(" · ".join([steps, *values]))


def print_summary(
    metrics: Mapping[str, float], judgments: Mapping[str, Judgment], folder: Path
) -> None:
    """Print a table of the metrics, the figures and samples, and as the last line the run folder.

    Args:
        metrics: The final metrics, `<stage>/<metric>`.
        judgments: Metric to the comparison with what the config expects.
        folder: The run folder.
    """
    if _cells({**judgments, **metrics}):
        Console().print(_table(metrics, judgments))
    for reason in {one.reason: None for one in judgments.values() if one.reason}:
        _print(f"Expectations not judged: {reason}")
    for title, place, patterns in (
        ("Figures", folder / "figures", ("*.png", "*.html")),
        ("Samples", folder / "samples", ("*.txt",)),
        ("Predictions", folder, ("predictions.csv", "predictions.txt")),
    ):
        files = sorted(file.name for pattern in patterns for file in place.glob(pattern))
        if files:
            _print(f"{title} ({place}): {', '.join(files)}")
    _print(f"run folder: {folder}")


def _table(metrics: Mapping[str, float], judgments: Mapping[str, Judgment]) -> Table:
    cells = _cells({**judgments, **metrics})
    stages = [stage for stage in COLUMNS if any(stage == one for one, _ in cells)]
    table = Table("metric", box=None, header_style="bold")
    for stage in stages:
        table.add_column(COLUMNS[stage], justify="right")
    if judgments:
        table.add_column("")
    for metric in dict.fromkeys(metric for _, metric in cells):
        names = [cells.get((stage, metric), "") for stage in stages]
        values = [metrics.get(name) for name in names]
        row = [metric, *("" if value is None else f"{value:.4f}" for value in values)]
        if judgments:
            found = {stage: judgments.get(name) for stage, name in zip(stages, names, strict=True)}
            row.append(", ".join(_verdict(stage, one) for stage, one in found.items() if one))
        table.add_row(*row)
    return table


def _cells(names: Iterable[str]) -> dict[tuple[str, str], str]:
    """Return the name of each stage and metric; the stage of a name without one is empty.

    Metrics of single classes, such as test/f1/shirt, and learning rates are left out.
    """
    cells = {}
    for name in names:
        if match := STAGE_AND_METRIC.fullmatch(name):
            if "/" not in match[2]:
                cells[match[1], match[2]] = name
        elif not name.startswith("lr-"):
            cells["", name] = name
    return cells


def _verdict(stage: str, judgment: Judgment) -> str:
    color = COLORS.get(judgment.verdict, "yellow")
    return f"expected {stage} {judgment.expected}: [{color}]{judgment.verdict}[/]"


def _print(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)
