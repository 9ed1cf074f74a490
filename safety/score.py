"""Score texts with a guard: the probability that each is harmful.

    python -m safety.score --guard best.ckpt --input prompts.csv --text_column prompt \\
        --output scores.csv

The output has the rows and columns of the input, in the same order, and a column `p_harmful`: the
probability of all classes of the guard but `harmless`, in [0, 1]. Base64 and leetspeak are decoded;
of the text and the decoded text, the more harmful one counts.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from datamodules.loading.tables import read_records
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from safety.guard import harm_probabilities, load_guard, read_threshold

COLUMN = "p_harmful"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m safety.score", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--guard", type=Path, required=True, metavar="PATH", help="checkpoint of a guard")
    add("--input", type=Path, required=True, metavar="FILE", help="CSV, TSV or JSON lines")
    add("--text_column", default="prompt", metavar="NAME", help="column of the texts (prompt)")
    add("--output", type=Path, required=True, metavar="FILE", help="CSV file to write")
    return parser


def main(args: list[str] | None = None) -> list[float]:
    """Run a command line, such as `main(["--guard", …])`, and return the probabilities.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("score"):
        rows = read_rows(options.input, options.text_column)
        guard, threshold = load_guard(options.guard), read_threshold(options.guard)
        scores = harm_probabilities(guard, [str(row[options.text_column]) for row in rows])
        write_scores(options.output, rows, scores)
    refused = sum(score >= threshold for score in scores)
    print(f"{refused:,} of {len(scores):,} texts have {COLUMN} >= {threshold:g}: {options.output}")
    return scores


def read_rows(path: Path, text_column: str) -> list[dict[str, Any]]:
    """Return the rows of a table by column name.

    Raises:
        UserError: If the file is missing or invalid, or a row has no such column.
    """
    rows = []
    for where, record in read_records(path):
        if isinstance(record, UserError):
            raise record
        if text_column not in record:
            raise UserError(
                f"{where} has no column {text_column!r}; it has {', '.join(map(repr, record))}. "
                "Set --text_column."
            )
        if COLUMN in record:
            raise UserError(f"{where} already has a column {COLUMN!r}: rename it.")
        rows.append(dict(record))
    if not rows:
        raise UserError(f"{path} has no rows.")
    return rows


def write_scores(path: Path, rows: list[dict[str, Any]], scores: list[float]) -> None:
    """Write the rows with their scores as CSV.

    Raises:
        UserError: If the file cannot be written.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*columns, COLUMN])
            writer.writeheader()
            for row, score in zip(rows, scores, strict=True):
                writer.writerow(row | {COLUMN: f"{score:.6f}"})
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error}.") from error


if __name__ == "__main__":
    main()
