"""docs/course.md and the comments of the configs agree on days and expected results."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT
from tests.support.configs import EXPERIMENTS

COURSE = (ROOT / "docs/course.md").read_text(encoding="utf-8")
ROWS = [line.split(" | ") for line in COURSE.splitlines() if re.match(r"\| \d+ \|", line)]


def days_in_comment(config: Path) -> set[int]:
    """Return the days that the first line of a config names, as in `# Days 21 to 23: …`."""
    first = re.split("[:,]", config.read_text(encoding="utf-8"))[0]
    numbers = [int(number) for number in re.findall(r"\d+", first)]
    return set(range(numbers[0], numbers[1] + 1)) if " to " in first else set(numbers)


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_config_names_its_days_and_results_of_the_course(config: Path) -> None:
    name = f"{config.parent.name}/{config.stem}"
    rows = [row for row in ROWS if re.search(rf"{name}(`|\.yaml)", row[2])]
    assert rows, f"{name} is missing in docs/course.md"
    assert days_in_comment(config) <= {int(row[0].strip("| ")) for row in rows}
    for expected in (
        yaml.safe_load(config.read_text(encoding="utf-8")).get("expect") or {}
    ).values():
        number = expected.split()[1]
        assert any(number in row[3] or "exactly correct" in row[3] for row in rows)


def test_every_day_has_a_row() -> None:
    assert {int(row[0].strip("| ")) for row in ROWS} == {*range(1, 51)}
