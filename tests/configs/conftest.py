"""Runs of configs draw no figures, except in slow tests, where figures are small."""

from base64 import b64decode

import pytest

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
