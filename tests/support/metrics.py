"""Read metrics.csv."""

import csv
from pathlib import Path


def metrics(run: Path) -> dict[tuple[str, str], float]:
    """Return the values of a run by metric and step."""
    with (run / "metrics.csv").open(newline="") as file:
        return {
            (name, row["step"]): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and "/" in name
        }
