"""Pages of the course as notebooks."""

from pathlib import Path

import pytest

from scripts.make_notebooks import PAGES, main
from tests.support import REAL_DIR, ROOT

pytest.importorskip("jupytext")


def test_cells_are_source_with_imports_and_commands(tmp_path: Path) -> None:
    import nbformat

    main(["--output", str(tmp_path), "--days", "5"])
    cells = nbformat.read(tmp_path / "day-05.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert "!{python} -m modules.scratch.gradcheck" in code
    (linear,) = [cell for cell in code if "class Linear" in cell]
    assert "import numpy as np" in linear
    assert "from modules.scratch.layers import Array, Layer" in linear
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert "# Day 5: A network in NumPy" in text
    assert "```console" not in text


@pytest.mark.slow
@pytest.mark.parametrize("day", PAGES)
def test_notebook_runs(day: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    if day == 1 and not (REAL_DIR / "MNIST/raw").is_dir():
        pytest.skip(f"no MNIST in {REAL_DIR}")
    for path in ROOT.iterdir():
        if path.name not in ("runs", "notebooks", "site"):
            (tmp_path / path.name).symlink_to(path)
    main(["--output", str(tmp_path / "notebooks"), "--days", str(day), "--short"])
    monkeypatch.setenv("DATA_DIR", str(REAL_DIR))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    notebook = nbformat.read(tmp_path / f"notebooks/day-{day:02}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    output = "\n".join(
        one.get("text", "") for cell in notebook.cells for one in cell.get("outputs", [])
    )
    assert "error:" not in output
    assert "Traceback" not in output
    assert len(list((tmp_path / "runs").glob("*/*/results.json"))) == {1: 1, 2: 2, 5: 0}[day]
