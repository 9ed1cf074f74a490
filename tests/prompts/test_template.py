"""Templates render their variables, and only those, in a sandbox."""

from pathlib import Path

import pytest

from engine.errors import UserError
from prompts.template import FOLDER, load_template

VALID = """name: greet
version: 1
description: A greeting.
variables: [who]
messages:
  - {role: user, content: "Hello {{ who }}"}
"""


def test_template_renders_its_variables(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(VALID)
    template = load_template(tmp_path / "a.yaml")
    assert template.render(who="{{ owl }}") == [{"role": "user", "content": "Hello {{ owl }}"}]
    for values in ({}, {"who": "a", "other": "b"}):
        with pytest.raises(UserError, match="its variables are who"):
            template.render(**values)


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.yaml")])
def test_templates_of_the_project_are_valid(name: str) -> None:
    assert load_template(name).name == name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 0", "version must be an integer"),
        ("version: 1\n", "", "its keys must be"),
        ("role: user", "role: owl", "one of the roles"),
        ("[who]", "[]", "must be those of its text: who"),
        ("{{ who }}", "{{ who", "unexpected end of template"),
        ("name: greet", "name: [", "while parsing"),
    ],
)
def test_invalid_template(old: str, new: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(VALID.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_template(tmp_path / "a.yaml")


def test_template_cannot_reach_python(tmp_path: Path) -> None:
    text = VALID.replace("{{ who }}", "{{ who.__class__.__mro__ }}")
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match="unsafe"):
        load_template(tmp_path / "a.yaml").render(who="owl")


def test_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no template missing: .* answer, rewrite"):
        load_template("missing")
