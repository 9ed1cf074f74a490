"""Templates of conversations: YAML files with name, version, variables and messages in Jinja2."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import UserError

FOLDER = Path(__file__).parent / "templates"
ROLES = ("system", "user", "assistant")
KEYS = {"name", "version", "description", "variables", "messages"}


@dataclass(frozen=True)
class Template:
    """A conversation with variables.

    Args:
        name: Its name.
        version: Raised with every change of its text, at least 1.
        description: What it is for.
        variables: Names of the values that `render` needs.
        messages: Role, and content in Jinja2, of each message.
    """

    name: str
    version: int
    description: str
    variables: tuple[str, ...]
    messages: tuple[tuple[str, str], ...]

    def render(self, **values: Any) -> list[dict[str, str]]:
        """Return the messages, `{"role", "content"}`.

        Raises:
            UserError: If a variable is missing or unknown, or the text cannot be rendered.
        """
        if set(values) != set(self.variables):
            raise UserError(
                f"template {self.name}: its variables are {', '.join(self.variables)}; got "
                f"{', '.join(sorted(values)) or 'none'}."
            )
        try:
            return [
                {"role": role, "content": _environment().from_string(text).render(values).strip()}
                for role, text in self.messages
            ]
        except TemplateError as error:
            raise UserError(f"template {self.name}: {error}.") from error


def load_template(name: str | Path) -> Template:
    """Return a template of the folder `prompts/templates` by its name, or of a YAML file.

    Raises:
        UserError: If it does not exist or is not valid, naming the key.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise UserError(f"no template {name}: give a YAML file or one of {known}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _check(path, content)
    except (yaml.YAMLError, UnicodeDecodeError, TemplateError) as error:
        raise UserError(f"template {path}: {error}.") from error


def _check(path: Path, content: Any) -> Template:
    if not isinstance(content, Mapping) or set(content) != KEYS:
        raise UserError(f"template {path}: its keys must be {', '.join(sorted(KEYS))}.")
    messages = [(message["role"], message["content"]) for message in content["messages"]]
    if not messages or any(role not in ROLES for role, _ in messages):
        raise UserError(f"template {path}: each message has one of the roles {', '.join(ROLES)}.")
    if not isinstance(content["version"], int) or content["version"] < 1:
        raise UserError(f"template {path}: version must be an integer, at least 1.")
    used = set().union(*(meta.find_undeclared_variables(_parse(text)) for _, text in messages))
    variables = tuple(content["variables"])
    if used != set(variables):
        raise UserError(
            f"template {path}: variables must be those of its text: {', '.join(sorted(used))}."
        )
    return Template(
        content["name"], content["version"], content["description"], variables, tuple(messages)
    )


def _parse(text: str) -> Any:
    return _environment().parse(text)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return an environment in which a template cannot call functions or change values."""
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True)
