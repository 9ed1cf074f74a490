"""Pages of the course in docs/days: their code blocks, and the source that they include."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DAYS = ROOT / "docs/days"
FENCE = re.compile(r"^```(\w+)([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced code block: its language, options, text, and position in the page."""

    language: str
    options: dict[str, str]
    text: str
    start: int
    end: int


class Command(NamedTuple):
    """A command of a console block, and the output below it."""

    command: str
    output: str


def blocks(page: str, language: str | None = None) -> Iterator[Block]:
    """Yield the code blocks of a page; options are those of the fence, `name=value`.

    Raises:
        ValueError: If an option has no value.
    """
    for found in FENCE.finditer(page):
        words = [word.partition("=") for word in shlex.split(found[2])]
        if bad := [name for name, equals, _ in words if not equals]:
            raise ValueError(f"option {bad[0]!r} of a code block has no value: {found[0][:80]!r}")
        options = {name: value for name, _, value in words}
        if language in (None, found[1]):
            yield Block(found[1], options, found[3], *found.span())


def commands(block: Block) -> list[Command]:
    """Return the commands of a console block: lines that begin with `$ `, and their output.

    Raises:
        ValueError: If the block begins with something else.
    """
    if not block.text.startswith("$ "):
        raise ValueError(f"a console block must begin with `$ `: {block.text[:60]!r}")
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        command, output = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        found.append(Command(command, output))
    return found


def find_source(reference: str, docstring: bool = True) -> str:
    """Return the source of `FILE:NAME`, for example `modules/nets/mlp.py:MLP.forward`.

    Args:
        reference: File below the project's root, and the qualified name of a function, a class or
            a module-level variable; several names are separated by commas.
        docstring: Whether to include the docstrings of the functions and classes.

    Raises:
        ValueError: If the file or the name does not exist.
    """
    file, _, names = reference.partition(":")
    if not names or not (ROOT / file).is_file():
        raise ValueError(f"source={reference}: expected FILE:NAME, and FILE must exist")
    text = (ROOT / file).read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [
        lines_of(find_node(tree, name, reference), text, docstring) for name in names.split(",")
    ]
    return "\n\n\n".join(parts) + "\n"


def find_node(tree: ast.Module, name: str, reference: str) -> ast.stmt:
    """Return the definition of a qualified name."""
    node: ast.AST = tree
    for part in name.split("."):
        found = [child for child in getattr(node, "body", []) if part in defined(child)]
        if not found:
            raise ValueError(f"source={reference}: {name} is not defined there")
        node = found[-1]
    assert isinstance(node, ast.stmt)
    return node


def defined(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def lines_of(node: ast.stmt, text: str, docstring: bool) -> str:
    """Return the source lines of a statement, dedented."""
    lines = text.splitlines()
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    hidden: set[int] = set()
    for inner in [] if docstring else ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            end = inner.body[0].end_lineno or 0
            blank_below = end < len(lines) and not lines[end].strip()
            hidden |= {*range(inner.body[0].lineno, end + 1 + blank_below)}
    numbers = range(first, (node.end_lineno or first) + 1)
    shown = [lines[number - 1] for number in numbers if number not in hidden]
    indent = len(shown[0]) - len(shown[0].lstrip())
    return "\n".join(line[indent:] for line in shown).rstrip()


def fill(page: str) -> str:
    """Return a page as mkdocs takes it: sources included, options of the fences removed."""
    for block in reversed(list(blocks(page))):
        if not block.options:
            continue
        head, body = f"```{block.language}", block.text
        if reference := block.options.get("source"):
            head += f' title="{reference.partition(":")[0]}"'
            body = find_source(reference, block.options.get("docstring") != "no")
        page = f"{page[: block.start]}{head}\n{body}```{page[block.end :]}"
    return page
