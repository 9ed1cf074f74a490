"""What the README shows runs as it stands there."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT

README = (ROOT / "README.md").read_text()


def block(opening: str) -> str:
    """The code block that holds a line."""
    blocks = re.findall(r"```\w*\n(.*?)```", README, re.DOTALL)
    (found,) = [code for code in blocks if opening in code]
    return found


def test_the_net_the_data_and_the_config_of_the_readme_train_to_their_promise(
    tmp_path: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "my_net.py").write_text(block("class MyNet"))
    (tmp_path / "my_data.py").write_text(block("class Halves"))
    (tmp_path / "my.yaml").write_text(block("my_net.MyNet"))
    monkeypatch.syspath_prepend(tmp_path)
    run("fit", "--config", tmp_path / "my.yaml")
    output = capsys.readouterr().out
    assert ": met" in output
    assert "not met" not in output
    for name in ("my_net", "my_data"):
        sys.modules.pop(name)


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"\]\(([\w/.]+)\)|--config (configs/[\w/.]+\.yaml)", README))
    paths = {path for pair in named for path in pair if path}
    assert paths
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)`|^make (\w+)", README, re.MULTILINE))
    names = {name for pair in targets for name in pair if name}
    assert {"quickstart", "test"} <= names
    assert not [name for name in names if f"\n{name}:" not in makefile]
