"""Labeled rows of CSV, TSV and JSON-lines files; errors name the file and the row."""

import csv
import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from datamodules.text.reading import json_record, read_utf8
from engine.errors import UserError

FORMATS = (".csv", ".tsv", ".jsonl")
LABEL_SEPARATOR = ";"  # between the labels of a cell, where a row has several

Target = Literal["class", "number", "labels"]
Label = str | float | list[str] | None


class Row(NamedTuple):
    """One row of a table."""

    where: str  # "reviews.csv, row 17 (line 18)", for error messages
    text: Any  # a text, or a pair of texts
    label: Label  # a class, a number or several labels, by the target; None: unlabeled


def read_table(
    path: Path,
    text_column: str = "text",
    label_column: str = "label",
    target: Target = "class",
    labeled: bool = True,
    skip_bad_rows: bool = False,
    second_text_column: str | None = None,
) -> list[Row]:
    """Read the rows of a table, in order.

    Args:
        path: CSV, TSV (without quoting), JSON lines, or for unlabeled texts also TXT with one text
            per line; UTF-8, compressed if the name ends with `.gz`.
        text_column: Column, or JSON field, of the text.
        label_column: Column, or JSON field, of the label.
        target: `class`: one class name; `number`: one number; `labels`: any number of class names,
            as a JSON list or separated by `;`.
        labeled: Whether every row must have a label.
        skip_bad_rows: Skip invalid rows with one warning that counts them, instead of raising.
        second_text_column: Column of the second text; each row is then a pair of texts.

    Raises:
        UserError: If the file or a row is invalid, naming the row.
    """
    formats = FORMATS if labeled or second_text_column else (*FORMATS, ".txt")
    is_plain = path.name.lower().removesuffix(".gz").endswith(".txt")
    if is_plain and ".txt" in formats and path.is_file():
        lines = read_utf8(path).removesuffix("\n").split("\n")
        return [Row(f"{path}, line {n}", line, None) for n, line in enumerate(lines, start=1)]
    text_columns = [name for name in (text_column, second_text_column) if name is not None]
    rows, errors = [], []
    for where, record in read_records(path, formats):
        try:
            if isinstance(record, UserError):
                raise record
            wanted = [*text_columns, label_column] if labeled else text_columns
            if missing := [name for name in wanted if name not in record]:
                raise UserError(
                    f"{where} has no column {_listed(missing)}; it has {_listed(list(record))}. "
                    "Set --data.text_column, --data.label_column and, for pairs of texts, "
                    "--data.second_text_column."
                )
            raw = record.get(label_column)
            label = None
            if labeled or raw not in (None, ""):
                label = _label(raw, target, f"{where}, {label_column!r}")
            texts = tuple(_scalar(record[name], f"{where}, {name!r}") for name in text_columns)
            rows.append(Row(where, texts if second_text_column else texts[0], label))
        except UserError as error:
            if not skip_bad_rows:
                raise
            errors.append(error)
    if not rows:
        raise errors[0] if errors else UserError(f"{path} has no rows.")
    if errors:
        rank_zero_warn(
            f"{path}: skipped {len(errors):,} of {len(errors) + len(rows):,} rows. The first: "
            f"{errors[0]}"
        )
    return rows


def read_records(
    path: Path, formats: tuple[str, ...] = FORMATS
) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
    """Yield the place of each record, for error messages, and the record or what is wrong with it.

    Args:
        path: CSV, TSV (without quoting), JSON lines, or JSON with a list of objects; UTF-8,
            compressed if the name ends with `.gz`.
        formats: Endings of names that the caller allows.

    Raises:
        UserError: If the file is invalid.
    """
    if not path.is_file():
        raise UserError(f"No file {path} (looked for from {Path.cwd()}): correct its name.")
    kind = "".join(path.suffixes[-2:]).lower().removesuffix(".gz")
    if not kind.endswith(formats):
        raise UserError(
            f"{path} has an unknown format: use {', '.join(f'*{f}' for f in formats)}, or the same "
            "followed by .gz."
        )
    content = read_utf8(path)
    if kind.endswith(".jsonl"):
        yield from _json_lines(path, content)
    elif kind.endswith(".json"):
        yield from _json_list(path, content)
    else:
        yield from _table(path, content, kind.endswith(".tsv"))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown or "nothing"


def _scalar(value: Any, where: str) -> str:
    """Convert a cell or JSON value to a string; 1.0 becomes "1"."""
    if value is None:
        raise UserError(f"{where} is empty: complete the row or remove it.")
    if isinstance(value, list | dict):
        raise UserError(f"{where} is a JSON {'list' if isinstance(value, list) else 'object'}.")
    if isinstance(value, bool):
        return str(value).lower()  # as in JSON
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _label(value: Any, target: Target, where: str) -> Label:
    if target == "labels":
        parts = value.split(LABEL_SEPARATOR) if isinstance(value, str) else value
        if not isinstance(parts, list):
            raise UserError(
                f'{where} must be a JSON list of labels or text such as "a{LABEL_SEPARATOR}b".'
            )
        names = [_scalar(part, where).strip() for part in parts]
        return list(dict.fromkeys(filter(None, names)))
    if target == "class" and isinstance(value, list):
        raise UserError(f"{where} is a list: use --data.target labels for several labels per row.")
    label = _scalar(value, where).strip()
    if not label:
        raise UserError(f"{where} is empty: complete the row or remove it.")
    if target == "class":
        return label
    number = _number(label)
    if isinstance(number, str) or not math.isfinite(number):
        raise UserError(f"{where} is {label!r}; --data.target number needs a finite number.")
    return number


def _table(
    path: Path, text: str, tabs: bool
) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # texts may be longer than 128 KB
    reader = csv.reader(
        io.StringIO(text, newline=""),  # split at \n and \r only, not at Unicode line separators
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    names: list[str] | None = None
    number = 0
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += names is not None
            yield (
                f"{path}, line {reader.line_num}",
                UserError(
                    f"{path}, line {reader.line_num}: {error}. Put a text with quotation marks in "
                    "quotation marks and double those inside it."
                ),
            )
            continue
        if not values:  # empty line
            continue
        if names is None:
            names = values
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise UserError(f"{path} has two columns named {_listed(repeated)}: rename one.")
            continue
        number += 1
        where = f"{path}, row {number} (line {reader.line_num})"
        if len(values) == len(names):
            yield where, dict(zip(names, values, strict=True))
            continue
        yield (
            where,
            UserError(
                f"{where} has {len(values)} columns, the header has {len(names)} "
                f"({_listed(names)}): quote texts that contain the separator, or correct the row."
            ),
        )


def _json_lines(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any] | UserError]]:
    number = 0
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        number += 1
        where = f"{path}, row {number} (line {line_number})"
        try:
            record = json_record(line, where)
        except UserError as error:
            yield where, error
            continue
        if isinstance(record, dict):
            yield where, record
        else:
            example = '{"text": "…", "label": "…"}'
            yield where, UserError(f"{where} is not a JSON object such as {example}.")


def _json_list(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    records = json_record(text, str(path))
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path} is not a JSON list of objects; JSON lines are named *.jsonl.")
    for number, record in enumerate(records, start=1):
        yield f"{path}, record {number}", record


# From labels to targets.


def class_names_of(rows: Sequence[Row], classes: Sequence[str] | None = None) -> list[str]:
    """Return the given classes, else the labels of the rows, sorted; numbers by value.

    Raises:
        UserError: If a class is given twice, or two labels are the same number, such as 1 and 1.0.
    """
    if classes is not None:
        if repeated := sorted({name for name in classes if classes.count(name) > 1}):
            raise UserError(f"--data.classes has {_listed(repeated)} more than once.")
        return list(classes)
    names = sorted({name for row in rows for name in _names(row.label)})
    if all(name.removeprefix("-").isdecimal() for name in names):
        names.sort(key=int)
    numbers: dict[float | str, str] = {}
    for name in names:
        other = numbers.setdefault(_number(name), name)
        if other != name:
            raise UserError(
                f"The labels {other!r} and {name!r} are the same number but different classes: "
                "write them alike."
            )
    return names


def _number(name: str) -> float | str:
    try:
        return float(name)
    except ValueError:
        return name


def _names(label: Label) -> list[str]:
    return label if isinstance(label, list) else [str(label)]


def encode_labels(rows: Sequence[Row], target: Target, class_names: Sequence[str]) -> list[Any]:
    """Convert labels to class indices (`class`), floats (`number`) or lists of indices (`labels`).

    Raises:
        UserError: If a label is not one of the classes.
    """
    if target == "number":
        return [row.label for row in rows]
    index = {name: number for number, name in enumerate(class_names)}
    unknown = [(row, name) for row in rows for name in _names(row.label) if name not in index]
    if unknown:
        row, name = unknown[0]
        others = f" ({len(unknown) - 1:,} more such labels)" if len(unknown) > 1 else ""
        raise UserError(
            f"{row.where} has the label {name!r}{others}, which is not one of the "
            f"{len(index)} classes: {_listed(class_names)}. Correct the file, or list all classes "
            "with --data.classes."
        )
    encoded = [[index[name] for name in _names(row.label)] for row in rows]
    return encoded if target == "labels" else [label for (label,) in encoded]


def to_targets(labels: Sequence[Any], target: Target, num_classes: int) -> Tensor:
    """Convert encoded labels to (N,) int64, (N,) float, or multi-hot (N, num_classes) float."""
    if target == "class":
        return torch.tensor(labels, dtype=torch.int64)
    if target == "number":
        return torch.tensor(labels, dtype=torch.float32)
    multi_hot = torch.zeros(len(labels), num_classes)
    for row, indices in enumerate(labels):
        multi_hot[row, indices] = 1
    return multi_hot


def count_classes(labels: Sequence[Any], target: Target, num_classes: int) -> list[int]:
    """Return the number of samples of each class; a sample may have several."""
    if target == "number":
        raise UserError("class counts need --data.target class or labels.")
    targets = to_targets(labels, target, num_classes)
    if target == "class":
        return targets.bincount(minlength=num_classes).tolist()
    return targets.sum(dim=0).int().tolist()


def readable_label(label: Any, target: Target, class_names: Sequence[str]) -> Any:
    """Return the class names of an encoded label; numbers unchanged."""
    if target == "number":
        return label
    indices = label if isinstance(label, list) else [label]
    return f"{LABEL_SEPARATOR} ".join(class_names[index] for index in indices)
