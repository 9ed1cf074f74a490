"""docs/components.md lists what a config can name."""

from scripts.list_components import page
from tests.support import ROOT


def test_components_page_is_current() -> None:
    assert (ROOT / "docs/components.md").read_text(encoding="utf-8") == page()


def test_every_component_has_a_purpose() -> None:
    assert not [line for line in page().splitlines() if line.endswith("|  |")]
