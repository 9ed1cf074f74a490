"""The page of a benchmark: a heading that names the machine, and tables that grow by the round."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from engine.precision import bfloat16_instructions


def parser(name: str, described: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """Command line of `python -m benchmarks.NAME`; --rounds where there is a number of them."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=described)
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds, help="turns of each contestant")
    made.add_argument("--write", type=Path, help="a Markdown file for the table")
    return made


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of two contestants, round by round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


class Page:
    """Prints a Markdown page as it comes, and keeps it to be written.

    Args:
        name: Of the benchmark, as in `python -m benchmarks.NAME`.
        title: Its first line.
        told: What was measured, and how often.
        *packages: Those whose versions count besides torch's.
    """

    def __init__(self, name: str, title: str, told: str, *packages: ModuleType) -> None:
        versions = [f"{package.__name__} {package.__version__}" for package in (torch, *packages)]
        self.lines: list[str] = []
        unit = bfloat16_instructions() or "no unit for bfloat16"
        gpu = f"{torch.cuda.get_device_name(0)}, " if torch.cuda.is_available() else ""
        self._add(
            f"# {title}",
            "",
            f"`python -m benchmarks.{name}`, {time.strftime('%Y-%m-%d')}, {gpu}"
            f"{os.cpu_count()} CPU cores ({platform.machine()}, {unit}), {torch.get_num_threads()} "
            f"threads, {', '.join(versions)}; {told}",
        )

    def table(self, *head: str) -> None:
        """Begin a table with these columns."""
        self._add("")
        self.row(*head)
        self.row(*["---"] * len(head))

    def row(self, *cells: str) -> None:
        self._add(f"| {' | '.join(cells)} |")

    def _add(self, *lines: str) -> None:
        self.lines += lines
        print(*lines, sep="\n", flush=True)

    def write(self, path: Path | None) -> None:
        """Into a file, if there is to be one."""
        if path is not None:
            path.write_text("\n".join(self.lines) + "\n")
