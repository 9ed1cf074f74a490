"""Runs of configs read few texts and draw no figures, except in slow tests: small ones there."""

from base64 import b64decode

import pytest

from datamodules.language_modeling import source
from engine.run import figures

BLANK = b64decode(  # a PNG image of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def _cheap_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip drawing, which takes half of a run of one step; tests/callbacks covers it."""
    if request.node.get_closest_marker("slow"):
        small = {"figure.dpi": 30, "figure.constrained_layout.use": False}
        monkeypatch.setattr(figures, "STYLE", figures.STYLE | small)
    else:
        monkeypatch.setattr(figures, "render", lambda draw: BLANK)


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MODULES", "argparse ast base64 bdb")
