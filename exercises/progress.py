"""Points of each day, kept in a local JSON file."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from exercises.grading import FOLDER, ExerciseError, Grade

DEFAULT_FILE = FOLDER / "progress.json"


class Record(TypedDict):
    """The best result of a day."""

    points: int
    possible: int
    date: str


def read(file: Path) -> dict[int, Record]:
    """Return the record of each day that was graded.

    Raises:
        ExerciseError: If the file is damaged.
    """
    if not file.is_file():
        return {}
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return {
            int(day): Record(
                points=int(record["points"]),
                possible=int(record["possible"]),
                date=str(record["date"]),
            )
            for day, record in saved.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExerciseError(f"{file} is damaged; delete it and grade your days again.") from error


def update(file: Path, results: Mapping[int, list[Grade]]) -> None:
    """Keep the results of days that are at least as good as those in the file."""
    records = read(file)
    for day, grades in results.items():
        points = sum(grade.points for grade in grades)
        possible = sum(grade.possible for grade in grades)
        before = records.get(day)
        if before is None or before["possible"] != possible or before["points"] <= points:
            date = time.strftime("%Y-%m-%d")
            records[day] = Record(points=points, possible=possible, date=date)
    partial = file.with_suffix(".part")
    text = json.dumps({str(day): records[day] for day in sorted(records)}, indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(file)
