"""`python -m exercises.certificate`: projects with runs and figures, points of days."""

import base64
import json
from pathlib import Path

import pytest

from exercises.certificate import PROJECTS, main
from tests.support import ROOT

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def make_run(folder: Path, value: float, verdict: str) -> None:
    (folder / "figures").mkdir(parents=True)
    (folder / "figures/confusion_matrix.png").write_bytes(PNG)
    judgment = {"expected": ">= 0.997", "value": value, "verdict": verdict, "reason": None}
    results = {"metrics": {"test/accuracy": value}, "expect": {"test/accuracy": judgment}}
    results |= {"net": "ResNet9", "parameters": 464106, "date": "2026-11-30"}
    (folder / "results.json").write_text(json.dumps(results))


def refused(*arguments: str, capsys) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["--name", "Ada", *arguments])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_page_shows_newest_run_figures_and_points(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/mnist-champion/009", 0.9961, "not met")
    make_run(tmp_path / "runs/mnist-champion/010", 0.9973, "met")
    make_run(tmp_path / "runs/mine/001", 0.9, "not judged")
    points = {"5": {"points": 11, "possible": 11, "date": "2026-11-29"}}
    (tmp_path / "progress.json").write_text(json.dumps(points))
    page = main(
        [
            *("--name", "Ada <Lovelace>", "--runs", str(tmp_path / "runs")),
            *("--run", f"50={tmp_path}/runs/mine/001"),
            *("--progress", str(tmp_path / "progress.json")),
            *("--output", str(tmp_path / "page.html")),
        ]
    ).read_text(encoding="utf-8")
    assert "Ada &lt;Lovelace&gt;" in page
    assert "mnist-champion/010" in page
    assert "mnist-champion/009" not in page
    assert "0.9973" in page
    assert base64.b64encode(PNG).decode() in page
    assert "runs/mine/001" in page
    assert "11 of 11" in page
    assert page.count("No finished run yet.") == 3
    assert "http" not in page  # one file, without requests


def test_errors_are_reported(tmp_path: Path, capsys) -> None:
    assert "expected DAY=FOLDER" in refused("--run", "7=runs/x/001", capsys=capsys)
    assert "has no results.json" in refused("--run", f"50={tmp_path}", capsys=capsys)
    (tmp_path / "results.json").write_text("{")
    assert "is not valid JSON" in refused("--run", f"50={tmp_path}", capsys=capsys)
    (tmp_path / "results.json").write_text("{}")
    assert "lacks 'metrics'" in refused("--run", f"50={tmp_path}", capsys=capsys)
    assert "cannot write" in refused("--output", str(tmp_path / "a/b.html"), capsys=capsys)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.day)
def test_experiments_of_projects_have_configs(project) -> None:
    for experiment in project.experiments:
        folder, _, name = experiment.partition("-")
        assert (ROOT / "configs" / folder / f"{name}.yaml").is_file()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.day)
def test_first_experiment_of_a_project_is_that_of_the_course(project) -> None:
    rows = (ROOT / "docs/course.md").read_text(encoding="utf-8").splitlines()
    day = "\n".join(row for row in rows if row.startswith(f"| {project.day} |"))
    for experiment in project.experiments[:1]:
        assert f"`fit {experiment.replace('-', '/', 1)}`" in day
