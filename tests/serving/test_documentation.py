"""The commands and the code of docs/serving.md work against a server."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.requests import png
from tests.support.server import ServerProcess, arguments

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def server(
    sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"), *arguments(sources))
    yield server
    assert server.stop() == 0


def test_commands_answer(server: ServerProcess, tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    (block,) = [block for block in blocks if "/explain" in block]
    (tmp_path / "digit.png").write_bytes(png())
    for command in block.replace("\\\n", " ").splitlines():
        checked = command.replace(ADDRESS, server.url).replace("curl", "curl --fail-with-body", 1)
        done = subprocess.run(checked, shell=True, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("library", ["httpx", "openai"])
def test_python_code_prints_an_answer(
    server: ServerProcess, library: str, capsys: pytest.CaptureFixture
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (block,) = [
        block for block in blocks if f"import {library}" in block or f"from {library}" in block
    ]
    exec(compile(block.replace(ADDRESS, server.url), "serving.md", "exec"), {})
    assert capsys.readouterr().out.strip()
