"""Graders give full points to the solutions and name the mistake of typical wrong solutions."""

import importlib
import inspect
from pathlib import Path

import pytest

from exercises import grading
from exercises.grading import exercise_file, grade, grade_task, load, tasks
from tests.exercises.mistakes import Mistake

DAYS = grading.days()


def mistakes(day: int) -> list[Mistake]:
    module = importlib.import_module(f"tests.exercises.mistakes.day{day:02d}")
    return list(module.MISTAKES)


WRONG = [(day, mistake) for day in DAYS for mistake in mistakes(day)]


@pytest.mark.parametrize("day", DAYS)
def test_solutions_get_all_points(day: int) -> None:
    grades = grade(day, exercise_file(day, solutions=True))
    assert not [message for result in grades for message in result.messages]
    assert all(result.points == result.possible > 0 for result in grades)


@pytest.mark.parametrize("day", DAYS)
def test_exercises_are_to_be_written(day: int) -> None:
    exercises, solutions = load(exercise_file(day)), load(exercise_file(day, solutions=True))
    names = [task.name for task in tasks(day)]
    assert 2 <= len(names) <= 5
    for name in names:
        stub = getattr(exercises, name)
        assert inspect.getdoc(stub)
        assert inspect.signature(stub) == inspect.signature(getattr(solutions, name))
    for result in grade(day, exercise_file(day)):
        assert result.points == 0
        assert result.messages == ["not written yet"]


@pytest.mark.parametrize("day", DAYS)
def test_every_task_has_a_typical_mistake(day: int) -> None:
    assert {mistake.task for mistake in mistakes(day)} == {task.name for task in tasks(day)}
    assert len(mistakes(day)) >= 3


@pytest.mark.parametrize(
    ("day", "mistake"),
    WRONG,
    ids=[f"{day}-{mistake.task}-{index}" for index, (day, mistake) in enumerate(WRONG)],
)
def test_typical_mistakes_get_their_hint(day: int, mistake: Mistake, tmp_path: Path) -> None:
    solution = exercise_file(day, solutions=True)
    source = inspect.getsource(getattr(load(solution), mistake.task))
    assert source.count(mistake.right) == 1
    text = solution.read_text(encoding="utf-8")
    file = tmp_path / "wrong.py"
    file.write_text(
        text.replace(source, source.replace(mistake.right, mistake.wrong)), encoding="utf-8"
    )
    (task,) = [task for task in tasks(day) if task.name == mistake.task]
    result = grade_task(task, getattr(load(file), task.name), file)
    assert result.points < result.possible
    assert mistake.hint in " ".join(result.messages)
