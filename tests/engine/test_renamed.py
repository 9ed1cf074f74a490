"""Old public names keep loading."""

import importlib

import pytest

from engine.renamed import ARGUMENTS, CLASSES, VALUES, upgrade


def attribute(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("old", CLASSES)
def test_old_class_path_imports_the_new_class(old: str) -> None:
    assert attribute(old) is attribute(CLASSES[old])


def test_unknown_attribute_of_an_old_module_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        attribute("modules.muon.Nothing")


def test_upgrade_replaces_class_paths_arguments_and_values(monkeypatch) -> None:
    monkeypatch.setitem(ARGUMENTS, "modules.optim.Muon", {"rate": "lr"})
    monkeypatch.setitem(VALUES, "modules.optim.Muon", {"kind": {"a": "b"}})
    old = {"optimizer": {"class_path": "modules.muon.Muon", "init_args": {"rate": 1, "kind": "a"}}}
    new = {"optimizer": {"class_path": "modules.optim.Muon", "init_args": {"lr": 1, "kind": "b"}}}
    assert upgrade(old) == new
    assert upgrade([old, 3, None]) == [new, 3, None]
