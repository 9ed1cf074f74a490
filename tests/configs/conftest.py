"""Runs of configs draw small figures: their layout takes half of a run of one step."""

import pytest

from engine.run import figures


@pytest.fixture(autouse=True)
def _small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"figure.dpi": 30, "figure.constrained_layout.use": False}
    monkeypatch.setattr(figures, "STYLE", figures.STYLE | small)
