"""A table for the console and the same as Markdown."""

from collections.abc import Sequence
from typing import Literal

from rich.table import Table

Rows = Sequence[Sequence[str]]


def console_table(head: Sequence[str], rows: Rows, numbers_from: int = 1) -> Table:
    """A rich table.

    Args:
        head: Names of the columns.
        rows: Cells.
        numbers_from: This column and those after it stand to the right.
    """
    table = Table(box=None, header_style="bold")
    for index, name in enumerate(head):
        justify: Literal["right", "left"] = "right" if index >= numbers_from else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """Lines of a Markdown table, the last one ended too."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines
    )
