"""Grade the exercises of one or more days, or show the points of all days.

    python -m exercises.check 5               # grades exercises/day05.py
    python -m exercises.check 5 --file my.py  # grades another file
    python -m exercises.check                 # the points so far
    python -m exercises.check --solutions     # grades the solutions of all days

Each check that passes is one point. The best result of a day is kept in exercises/progress.json.
The exit code is 0 if every check passes, 1 if one fails, and 2 after an error of the user.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exercises import grading, progress
from exercises.grading import ExerciseError, Grade


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m exercises.check", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("days", nargs="*", metavar="DAY", help="days to grade; without any, a table of all")
    add("--file", type=Path, help="file to grade instead of exercises/dayNN.py")
    add("--solutions", action="store_true", help="grade the solutions; nothing is recorded")
    add("--progress", type=Path, default=progress.DEFAULT_FILE, help="file that keeps the points")
    return parser


@contextmanager
def exit_on_error(program: str) -> Iterator[None]:
    """Print the message of an ExerciseError to stderr and exit with code 2.

    The one of `engine.errors` imports Lightning, which takes longer than grading a day.
    """
    try:
        yield
    except ExerciseError as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        sys.exit(2)


def main(args: list[str] | None = None) -> int:
    """Run a command line, such as `main(["5"])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        0 if every check passes, else 1.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    options = build_parser().parse_args(args)
    with exit_on_error("check"):
        days = [parse_day(text) for text in options.days]
        if options.file is not None and len(days) != 1:
            raise ExerciseError("--file needs the number of one day, as in: 5 --file my.py")
        if options.file is not None and options.solutions:
            raise ExerciseError("--file and --solutions exclude each other.")
        if not days and not options.solutions:
            print_table(progress.read(options.progress))
            return 0
        results = {}
        for day in days or grading.days():
            own = grading.exercise_file(day, options.solutions)
            file = own if options.file is None else options.file.resolve()
            results[day] = grading.grade(day, file)
            print_grades(day, file, results[day])
        if not options.solutions:
            progress.update(options.progress, results)
        complete = all(
            grade.points == grade.possible for grades in results.values() for grade in grades
        )
        return 0 if complete else 1


def parse_day(text: str) -> int:
    if not text.isdecimal():
        raise ExerciseError(f"'{text}' is not the number of a day.")
    return int(text)


def print_grades(day: int, file: Path, grades: list[Grade]) -> None:
    print(f"Day {day}: {grading.subject(day)} ({file})")
    width = max(len(grade.name) for grade in grades)
    for grade in grades:
        print(f"  {grade.name:{width}}  {grade.points} of {grade.possible}")
        for message in grade.messages:
            print(f"    - {message}")


def print_table(records: dict[int, progress.Record]) -> None:
    subjects = {day: grading.subject(day) for day in grading.days()}
    width = max(map(len, subjects.values()))
    print(f"day  {'subject':{width}}  points    date")
    for day, text in subjects.items():
        record = records.get(day)
        result = "-"
        if record is not None:
            result = f"{record['points']:2} of {record['possible']:2}  {record['date']}"
        print(f"{day:3}  {text:{width}}  {result}")
    done = sum(record["points"] == record["possible"] for record in records.values())
    print(f"{done} of {len(subjects)} days complete")


if __name__ == "__main__":
    sys.exit(main())
