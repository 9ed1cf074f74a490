"""Load the functions of a day and grade them, one point for each check that passes."""

import ast
import importlib
import importlib.util
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from exercises.expect import Wrong

FOLDER = Path(__file__).parent
SECONDS_PER_CHECK = 30  # of CPU time; the first check may import parts of torch


class ExerciseError(Exception):
    """An error of the user: the message says what is wrong, where, and what to do."""


@dataclass
class Task:
    """One function that the learner writes, and the checks that it must pass."""

    name: str
    checks: list[Callable[[Any], None]]


@dataclass
class Grade:
    """The result of a task."""

    name: str
    points: int
    possible: int
    messages: list[str] = field(default_factory=list)  # of the checks that failed


def days() -> list[int]:
    """Return the days that have exercises."""
    return sorted(int(file.stem[3:]) for file in FOLDER.glob("day[0-9][0-9].py"))


def exercise_file(day: int, solutions: bool = False) -> Path:
    """Return the file of a day.

    Raises:
        ExerciseError: If the day has no exercises.
    """
    if day not in days():
        known = ", ".join(map(str, days()))
        raise ExerciseError(f"day {day} has no exercises; choose from {known}.")
    return (FOLDER / "solutions" if solutions else FOLDER) / f"day{day:02d}.py"


def subject(day: int) -> str:
    """Return the subject of a day from the first line of its exercises."""
    tree = ast.parse(exercise_file(day).read_text(encoding="utf-8"))
    first_line = (ast.get_docstring(tree) or "").splitlines()[0]
    return first_line.partition(": ")[2].rstrip(".")


def tasks(day: int) -> list[Task]:
    """Return the tasks of a day."""
    found: list[Task] = importlib.import_module(f"exercises.graders.day{day:02d}").TASKS
    return found


def load(file: Path) -> ModuleType:
    """Import a file of exercises.

    Raises:
        ExerciseError: If there is no such file, or it cannot be imported.
    """
    if not file.is_file():
        raise ExerciseError(f"{file} does not exist.")
    spec = importlib.util.spec_from_file_location(f"submission_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ExerciseError(f"{file} is not a Python file: its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and inspect need it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}"
        raise ExerciseError(f"{where}: {error.msg}. Correct the line and run again.") from error
    except (Exception, SystemExit) as error:
        raise ExerciseError(f"importing {file} failed: {describe(error, file)}") from error
    return module


def describe(error: BaseException, file: Path) -> str:
    """Return type and message of an exception, and the last line of `file` that it passed."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == file
    ]
    where = f" ({file.name}, line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def grade(day: int, file: Path) -> list[Grade]:
    """Grade the functions that `file` defines for a day.

    Raises:
        ExerciseError: If the file cannot be imported.
    """
    module = load(file)
    return [grade_task(task, getattr(module, task.name, None), file) for task in tasks(day)]


def grade_task(task: Task, function: Any, file: Path) -> Grade:
    """Run the checks of a task; a task that is not written yet has one message."""
    result = Grade(task.name, 0, len(task.checks))
    if function is None:
        result.messages.append(f"{file.name} does not define {task.name}.")
        return result
    for check in task.checks:
        try:
            with time_limit(SECONDS_PER_CHECK):
                check(function)
        except NotImplementedError:
            result.messages = ["not written yet"]
            return result
        except (Exception, SystemExit) as error:
            text = str(error) if isinstance(error, Wrong) else describe(error, file)
            result.messages.append(f"{check.__name__.replace('_', ' ')}: {text}")
        else:
            result.points += 1
    return result


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Wrong after `seconds` of CPU time; without effect on Windows and in threads."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "setitimer") or not main_thread:
        yield
        return

    def stop(signal_number: int, frame: object) -> None:
        raise Wrong(f"not finished after {seconds:g} s of CPU time.", "is there an endless loop?")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
