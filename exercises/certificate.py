"""Write a certificate: the points of each day, and the projects with the learner's own runs.

    python -m exercises.certificate --name "Ada Lovelace"
    python -m exercises.certificate --name "Ada Lovelace" --run 50=runs/my-capstone/003

For each project the newest finished run of its experiments is taken from the runs folder; `--run`
names others. The page contains metrics, expectations and figures of these runs, and needs no other
file.
"""

import argparse
import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from exercises import grading, progress
from exercises.check import exit_on_error
from exercises.grading import ExerciseError

MAX_FIGURES = 6  # of a run


@dataclass
class Project:
    """A project of the course and the experiments whose runs belong to it."""

    day: int
    title: str
    experiments: tuple[str, ...]


PROJECTS = (
    Project(10, "MNIST with a custom architecture", ("mnist-champion", "mnist-champion_gpu")),
    Project(20, "A character RNN that generates text", ("shakespeare-lstm",)),
    Project(30, "minGPT on Shakespeare", ("shakespeare-gpt", "shakespeare-gpt_small_cpu")),
    Project(40, "A text-classification API", ("sst2-minilm", "ag_news-bag_of_words")),
    Project(50, "Capstone", ()),
)


@dataclass
class Run:
    """What the page shows of a run folder."""

    folder: Path
    results: dict[str, Any]

    @property
    def figures(self) -> list[tuple[str, str]]:
        """Return name and base64-encoded PNG of the first figures."""
        files = sorted(self.folder.glob("figures/*.png"))[:MAX_FIGURES]
        return [(file.stem, base64.b64encode(file.read_bytes()).decode()) for file in files]


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ExerciseError: If it has no readable results.json.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise ExerciseError(f"{folder} has no results.json: not a run folder, or not finished.")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in ("metrics", "expect", "date") if key not in results]
    except (ValueError, TypeError) as error:
        raise ExerciseError(f"{file} is not valid JSON.") from error
    if missing:
        raise ExerciseError(f"{file} lacks '{missing[0]}': it was not written by train.py.")
    return Run(folder, results)


def newest_run(experiment: Path) -> Path | None:
    """Return the finished run of an experiment with the highest number."""
    finished = [file.parent for file in experiment.glob("*/results.json")]
    return max(finished, key=lambda folder: (len(folder.name), folder.name), default=None)


def runs_of(project: Project, runs_dir: Path, chosen: dict[int, list[Path]]) -> list[Run]:
    """Return the runs that `chosen` has for a project, or the newest of its experiments."""
    if project.day in chosen:
        return [read_run(folder) for folder in chosen[project.day]]
    newest = (newest_run(runs_dir / experiment) for experiment in project.experiments)
    return [read_run(folder) for folder in newest if folder is not None]


def parse_runs(arguments: list[str]) -> dict[int, list[Path]]:
    """Return the run folders of each day from arguments such as 50=runs/my-capstone/003.

    Raises:
        ExerciseError: If an argument has another form, or the day has no project.
    """
    chosen: dict[int, list[Path]] = {}
    days = [str(project.day) for project in PROJECTS]
    for argument in arguments:
        day, equals, folder = argument.partition("=")
        if not equals or day not in days:
            raise ExerciseError(
                f"--run {argument}: expected DAY=FOLDER with a day of {', '.join(days)}."
            )
        chosen.setdefault(int(day), []).append(Path(folder))
    return chosen


def render(
    name: str, records: dict[int, progress.Record], projects: list[tuple[Project, list[Run]]]
) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(grading.FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    subjects = {day: grading.subject(day) for day in grading.days()}
    complete = [day for day, record in records.items() if record["points"] == record["possible"]]
    return environment.get_template("certificate.html").render(
        name=name,
        date=time.strftime("%Y-%m-%d"),
        subjects=subjects,
        records=records,
        complete=len([day for day in complete if day in subjects]),
        projects=projects,
    )


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["--name", "Ada Lovelace"])`, and return the page.

    Args:
        args: Arguments; by default those of the process.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    parser = argparse.ArgumentParser(
        "python -m exercises.certificate", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--name", required=True, help="your name")
    add("--runs", type=Path, default=Path("runs"), help="folder of your runs")
    add("--run", action="append", default=[], metavar="DAY=FOLDER", help="run of a project")
    add("--progress", type=Path, default=progress.DEFAULT_FILE, help="file that keeps the points")
    add("--output", type=Path, default=Path("certificate.html"), help="page to write")
    options = parser.parse_args(args)
    with exit_on_error("certificate"):
        chosen = parse_runs(options.run)
        projects = [(project, runs_of(project, options.runs, chosen)) for project in PROJECTS]
        page = render(options.name, progress.read(options.progress), projects)
        output: Path = options.output
        try:
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ExerciseError(f"cannot write {output}: {error.strerror}.") from error
    print(f"Certificate: {output}")
    return output


if __name__ == "__main__":
    main()
