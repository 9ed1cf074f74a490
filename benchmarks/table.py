"""The Markdown page of a benchmark: machine, versions and tables."""

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


def parser(
    name: str, description: str | None, rounds: int | None = None
) -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.NAME`, with --rounds if a default is given."""
    result = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    if rounds is not None:
        result.add_argument(
            "--rounds", type=int, default=rounds, help="measurements of each candidate"
        )
    result.add_argument("--write", type=Path, help="Markdown file to write the page to")
    return result


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of two candidates, round by round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


class Page:
    """A Markdown page that is printed line by line and can be written to a file.

    Args:
        name: Name of the benchmark, as in `python -m benchmarks.NAME`.
        title: Title of the page.
        description: What was measured, and how often.
        *packages: Packages whose versions are stated besides torch's.
    """

    def __init__(self, name: str, title: str, description: str, *packages: ModuleType) -> None:
        versions = [f"{package.__name__} {package.__version__}" for package in (torch, *packages)]
        self.lines: list[str] = []
        unit = bfloat16_instructions() or "no native bfloat16"
        gpu = f"{torch.cuda.get_device_name(0)}, " if torch.cuda.is_available() else ""
        self._add(
            f"# {title}",
            "",
            f"`python -m benchmarks.{name}`, {time.strftime('%Y-%m-%d')}, {gpu}"
            f"{os.cpu_count()} CPU cores ({platform.machine()}, {unit}), {torch.get_num_threads()} "
            f"threads, {', '.join(versions)}; {description}",
        )

    def text(self, text: str) -> None:
        """Add paragraphs."""
        self._add("", text)

    def table(self, *head: str) -> None:
        """Start a table with these columns."""
        self._add("")
        self.row(*head)
        self.row(*["---"] * len(head))

    def row(self, *cells: str) -> None:
        """Add a row to the table."""
        self._add(f"| {' | '.join(cells)} |")

    def _add(self, *lines: str) -> None:
        self.lines += lines
        print(*lines, sep="\n", flush=True)

    def write(self, path: Path | None) -> None:
        """Write the page, if a path is given."""
        if path is not None:
            path.write_text("\n".join(self.lines) + "\n")
