"""The commands of docs/pipelines.md and docs/deployment.md name files and options that exist."""

import re
import shlex

import pytest
import yaml

from serving.settings import Settings
from tests.support import ROOT

LINES = [
    pytest.param(line, id=line[:60])
    for page in ("pipelines", "deployment")
    for block in re.findall(
        r"```bash\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for line in block.replace("\\\n", " ").splitlines()
]


def source_of(words: list[str]) -> str:
    """Return the source of the program of a `python …` command, or of what it is made from."""
    if words[1] == "-m":
        return (ROOT / f"{words[2].replace('.', '/')}.py").read_text()
    if words[1] == "serve.py":
        return " ".join(f"--{name}" for name in (*Settings.model_fields, "config"))
    parts = [ROOT / words[1], *(ROOT / "cli").glob("*.py")]
    return "\n".join(path.read_text() for path in parts) + ' "--config"'


@pytest.mark.parametrize("line", LINES)
def test_command_has_existing_files_and_options(line: str) -> None:
    words = shlex.split(line, comments=True)
    for word in words:
        if re.match(r"(configs|deploy|scripts)/[\w./-]+\.\w+$", word):
            assert (ROOT / word).exists(), word
    if words[0] == "python":
        source = source_of(words)
        for option in [word for word in words if word.startswith("--")]:
            assert option in source, option


def test_stages_of_the_table_are_those_of_dvc() -> None:
    table = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
    modules = re.findall(r"^\| [a-z ]+ \| `python -m ([\w.]+)", table, re.MULTILINE)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    assert modules == [stage["cmd"].split()[2] for stage in stages]
