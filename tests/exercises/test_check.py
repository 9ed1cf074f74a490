"""`python -m exercises.check`: grades, the table of points, errors of the user."""

import json
from pathlib import Path

import pytest

from exercises import expect, grading
from exercises.check import main
from exercises.grading import Task, grade_task, time_limit

SOLUTION = grading.exercise_file(5, solutions=True)


@pytest.fixture
def progress(tmp_path: Path) -> Path:
    return tmp_path / "progress.json"


def error_of(*arguments: str | Path, capsys) -> str:
    """Run the command, expect a user error and return its message."""
    with pytest.raises(SystemExit) as exit:
        main([*map(str, arguments)])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("check: error: ")
    assert message.count("\n") == 1
    return message


def test_points_are_kept_and_shown(progress: Path, capsys) -> None:
    assert main(["5", "--file", str(SOLUTION), "--progress", str(progress)]) == 0
    assert "linear_backward                 2 of 2" in capsys.readouterr().out
    assert main(["--progress", str(progress)]) == 0
    table = capsys.readouterr().out
    points = json.loads(progress.read_text())["5"]["points"]
    assert f"back-propagation with NumPy, and checking it {points} of {points}" in " ".join(
        table.split()
    )
    assert f"1 of {len(grading.days())} days complete" in table


def test_best_result_is_kept(progress: Path, capsys) -> None:
    main(["5", "--file", str(SOLUTION), "--progress", str(progress)])
    before = progress.read_text()
    assert main(["5", "--progress", str(progress)]) == 1
    assert "not written yet" in capsys.readouterr().out
    assert progress.read_text() == before


def test_solutions_are_not_recorded(progress: Path) -> None:
    assert main(["5", "--solutions", "--progress", str(progress)]) == 0
    assert not progress.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("60",), "day 60 has no exercises; choose from 1, 2, 3"),
        (("five",), "'five' is not the number of a day"),
        (("5", "--file", "missing.py"), "missing.py does not exist"),
        (("--file", "my.py"), "--file needs the number of one day"),
        (("5", "--file", "my.py", "--solutions"), "exclude each other"),
    ],
)
def test_wrong_arguments_are_reported(arguments: tuple[str, ...], message: str, capsys) -> None:
    assert message in error_of(*arguments, capsys=capsys)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:\n", "wrong.py, line 1: "),
        ("import numpy\nnumpy.nothing\n", "AttributeError"),
        ("raise SystemExit(0)\n", "SystemExit"),
    ],
)
def test_files_that_cannot_be_imported_are_reported(
    source: str, message: str, tmp_path: Path, capsys
) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(source)
    assert message in error_of("5", "--file", file, capsys=capsys)


def test_damaged_progress_file_is_reported(progress: Path, capsys) -> None:
    progress.write_text('{"5": 1}')
    message = error_of("--progress", progress, capsys=capsys)
    assert "is damaged; delete it" in message


def grade_source(source: str, tmp_path: Path) -> list[str]:
    """Return the messages for relu_backward in a file."""
    file = tmp_path / "mine.py"
    file.write_text(source)
    return next(g for g in grading.grade(5, file) if g.name == "relu_backward").messages


def test_missing_function_is_reported(tmp_path: Path) -> None:
    assert grade_source("", tmp_path) == ["mine.py does not define relu_backward."]


def test_wrong_return_type_is_reported(tmp_path: Path) -> None:
    messages = grade_source("def relu_backward(dy, x):\n    return [0.0]\n", tmp_path)
    assert "has type list, expected a NumPy array" in messages[0]
    messages = grade_source("def relu_backward(dy, x):\n    dy * (x > 0)\n", tmp_path)
    assert "is a return statement missing?" in messages[0]


def test_exceptions_name_the_line(tmp_path: Path) -> None:
    messages = grade_source("def relu_backward(dy, x):\n    return dy[100]\n", tmp_path)
    assert "IndexError" in messages[0]
    assert "(mine.py, line 2)" in messages[0]


def test_modified_arguments_are_reported() -> None:
    def halve(x):
        x *= 0.5
        return x

    with pytest.raises(expect.Wrong, match="argument 0 was modified"):
        expect.unchanged(halve, expect.normal(3))


def test_endless_loop_is_stopped() -> None:
    def run():
        with time_limit(0.05):
            while True:
                pass

    with pytest.raises(expect.Wrong, match="endless loop"):
        run()


def test_a_check_that_fails_costs_one_point() -> None:
    def passes(function):
        expect.equal(function(), 1)

    def fails(function):
        expect.close(function(), 3.0, {"add two.": 1.0})

    result = grade_task(Task("one", [passes, fails]), lambda: 1, Path("mine.py"))
    assert (result.points, result.possible) == (1, 2)
    assert result.messages == ["fails: the result is 1, expected 3. Hint: add two."]


def test_bounds_of_time_and_memory() -> None:
    with pytest.raises(expect.Wrong, match="MB"):
        expect.less_memory_than(1, lambda: expect.normal(300_000), "")
    with pytest.raises(expect.Wrong, match="CPU time"):
        expect.faster_than(0.0, lambda: sum(range(10_000)), "")
