"""Tables for the console and in Markdown."""

from collections.abc import Sequence
from typing import Literal

from rich.table import Table

Rows = Sequence[Sequence[str]]


def console_table(head: Sequence[str], rows: Rows, numbers_from: int = 1) -> Table:
    """Return a rich table.

    Args:
        head: Column names.
        rows: Cells.
        numbers_from: First column of numbers; it and those after it are right-aligned.
    """
    table = Table(box=None, header_style="bold")
    for index, name in enumerate(head):
        justify: Literal["right", "left"] = "right" if index >= numbers_from else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table that ends with a newline."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines
    )
