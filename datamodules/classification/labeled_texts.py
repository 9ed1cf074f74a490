"""Texts with a label each, read from CSV, TSV or JSON lines; what is wrong is told with its row."""

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.loading.splits import split_rows
from datamodules.text.reading import json_record, read_utf8

FORMATS = (".csv", ".tsv", ".jsonl")


class LabeledTexts(NamedTuple):
    """Raw texts, and the number of the class of each."""

    texts: list[str]
    labels: list[int]

    def select(self, rows: Sequence[int]) -> "LabeledTexts":
        return LabeledTexts([self.texts[row] for row in rows], [self.labels[row] for row in rows])


class Row(NamedTuple):
    """One row of a table."""

    where: str  # "reviews.csv, row 17 (line 18)", for those who have to find it
    text: str
    label: str


def split_off(texts: LabeledTexts, size: int, seed: int = 0) -> tuple[LabeledTexts, ...]:
    """The texts without `size` of them, and those; drawn by a seed that no run changes."""
    rest, part = split_rows(len(texts.labels), size, seed)
    return texts.select(rest), texts.select(part)


def number_labels(rows: Sequence[Row], class_names: Sequence[str]) -> LabeledTexts:
    """Texts with the numbers of their classes.

    Raises:
        MisconfigurationException: If a row's label is none of the classes.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    strange = [row for row in rows if row.label not in numbers]
    if strange:
        others = f", and so have {len(strange) - 1:,} more rows" if len(strange) > 1 else ""
        raise MisconfigurationException(
            f"{strange[0].where} has the label {strange[0].label!r}{others}, which is none of the "
            f"{len(numbers)} classes: {_listed(class_names)}. Correct the file, or name all "
            "classes with --data.classes."
        )
    return LabeledTexts([row.text for row in rows], [numbers[row.label] for row in rows])


def read_table(
    path: Path,
    text_columns: Sequence[str],
    label_column: str,
    header: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of a table, in order; none is left out.

    Args:
        path: CSV, TSV (without quoting) or JSON lines, in UTF-8; packed if it is called `*.gz`.
        text_columns: Whose texts are joined with a blank between them.
        label_column: Where the label is.
        header: Names of the columns where the first row does not hold them.

    Raises:
        MisconfigurationException: If the file or a row of it can't be read, naming the row.
    """
    kind = "".join(path.suffixes[-2:]).removesuffix(".gz").lower()
    if not path.is_file():
        raise MisconfigurationException(
            f"There is no file {path} (looked for from {Path.cwd()}): correct its name."
        )
    if not kind.endswith(FORMATS):
        raise MisconfigurationException(
            f"{path} is of no known kind: give a file called {', '.join(f'*{f}' for f in FORMATS)} "
            "or the same with .gz behind it."
        )
    text = read_utf8(path)
    rows = _json_lines(path, text) if kind.endswith(".jsonl") else _table(path, text, kind, header)
    wanted = [*text_columns, label_column]
    for where, record in rows:
        missing = [name for name in wanted if name not in record]
        if missing:
            raise MisconfigurationException(
                f"{where} has no column {_listed(missing)}; it has {_listed(list(record))}. Name "
                "the right ones by --data.text_column and --data.label_column."
            )
        empty = [name for name in wanted if record[name] is None]
        if empty or record[label_column] == "":
            raise MisconfigurationException(
                f"{where} has nothing under {_listed(empty or [label_column])}: complete the row, "
                "or take it out."
            )
        yield Row(
            where, " ".join(record[n] or "" for n in text_columns), record[label_column] or ""
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"


def _table(
    path: Path, text: str, kind: str, header: Sequence[str] | None
) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a text may be longer than 128 KB
    tabs = kind.endswith(".tsv")
    reader = csv.reader(
        io.StringIO(text, newline=""),  # lines end where files do, not at every sign of Unicode
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    names = None if header is None else list(header)
    number = 0
    try:
        for values in reader:
            if not values:  # an empty line
                continue
            if names is None:
                names = values
                continue
            number += 1
            where = f"{path}, row {number} (line {reader.line_num})"
            if len(values) != len(names):
                raise MisconfigurationException(
                    f"{where} has {len(values)} columns and not the {len(names)} of the header "
                    f"({_listed(names)}): quote what holds a separator, or correct the row."
                )
            yield where, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise MisconfigurationException(
            f"{path}, line {reader.line_num}: {error}. A quotation mark in a text is written twice "
            "and the text between quotation marks."
        ) from error
    if number == 0:
        raise MisconfigurationException(f"{path} holds no row of texts.")


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    number = 0
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        number += 1
        where = f"{path}, row {number} (line {line_number})"
        record = json_record(line, where)
        if not isinstance(record, dict):
            raise MisconfigurationException(
                f'{where} is no JSON object such as {{"text": "…", "label": "…"}}.'
            )
        yield where, {str(k): None if v is None else str(v) for k, v in record.items()}
    if number == 0:
        raise MisconfigurationException(f"{path} holds no row of texts.")
