"""benchmarks.levers: equal rows and weights in every run, and a page of what the levers do."""

from pathlib import Path

import pytest
import torch

from benchmarks import levers
from benchmarks.levers import Levers, Parts, Rows
from datamodules import PythonSource
from datamodules.language_modeling.token_batches import RandomCrops

EXACT = {
    "none": Levers(),
    "rows": Levers(data="rows"),
    "accumulated": Levers(accumulate=4),
    "recomputed": Levers(checkpointing="full", loss_chunk_size=64),
}


@pytest.fixture(scope="module")
def data() -> PythonSource:
    source = PythonSource(context=32, batch_size=8)
    source.setup("fit")
    return source


def test_every_loader_serves_the_same_rows(data: PythonSource) -> None:
    crops = RandomCrops(data.train_tokens, data.context, data.batch_size, data.seed)
    whole = torch.stack([torch.cat(crops[step]) for step in range(3)])
    rows, parts = Rows(crops, 3), Parts(crops, 4)
    for step in range(3):
        by_row = [
            torch.stack(part) for part in zip(*(rows[8 * step + n] for n in range(8)), strict=True)
        ]
        by_part = [
            torch.cat(part) for part in zip(*(parts[4 * step + n] for n in range(4)), strict=True)
        ]
        assert torch.equal(torch.cat(by_row), whole[step])
        assert torch.equal(torch.cat(by_part), whole[step])


@pytest.mark.slow
def test_page_has_equal_losses_for_levers_that_are_exact(
    data: PythonSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(levers, "CANDIDATES", EXACT)
    monkeypatch.setattr(levers, "SHAPE", {"num_layers": 4, "num_heads": 2, "dim": 32})
    monkeypatch.setattr(levers, "load_data", lambda: data)
    levers.main(["--steps", "5", "--write", str(tmp_path / "page.md")])
    table = [line.split(" | ") for line in (tmp_path / "page.md").read_text().splitlines()[-4:]]
    assert [line[0].strip("| ") for line in table] == list(EXACT)
    losses = [float(line[-1].strip("| ")) for line in table]
    assert losses == pytest.approx([losses[0]] * 4, abs=2e-4)
    peaks = [float(line[4]) for line in table]  # relative to the first
    assert peaks[0] == 1
    assert peaks[1] == pytest.approx(1, abs=0.02)
    assert max(peaks[2:]) < 0.7
