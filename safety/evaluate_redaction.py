"""Measure the redaction of personal data on the synthetic sentences of Presidio.

    python -m safety.evaluate_redaction

The rules were developed on the even rows of safety/presidio-synth_dataset_v2.json.gz; the odd ones
are evaluated. A marked span is found if predicted spans of its kind cover it; a predicted span is
correct if it overlaps a marked one of its kind. `pii/recall` and `pii/precision` are those of all
claimed kinds of safety.redaction together. Of the marked dates and times only those with a day, a
month and a year count. The run folder gets results.json, with the numbers of each kind, also of
those that are not claimed, and errors.txt.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from datamodules.loading.files import default_data_dir, verify
from datamodules.text.reading import read_utf8
from engine.errors import UserError, exit_on_user_error
from engine.run.folder import new_run_folder
from engine.run.record import git_commit
from engine.run.tables import console_table
from safety.redaction import CLAIMED, Span, find_personal_data

FILE = "safety/presidio-synth_dataset_v2.json.gz"
SHA256 = "f6828467dc93f8417ee777b57136a0f350605ec5f8f949da0a33ac0dc76eed83"
KINDS = {  # marked kind → ours
    "EMAIL_ADDRESS": "EMAIL_ADDRESS",
    "DOMAIN_NAME": "URL",
    "IBAN_CODE": "IBAN_CODE",
    "CREDIT_CARD": "CREDIT_CARD",
    "IP_ADDRESS": "IP_ADDRESS",
    "US_SSN": "US_SSN",
    "US_DRIVER_LICENSE": "DRIVER_LICENSE",
    "DATE_TIME": "DATE",
    "PHONE_NUMBER": "PHONE_NUMBER",
    "STREET_ADDRESS": "STREET_ADDRESS",
    "PERSON": "PERSON",
}
CALENDAR_DATE = re.compile(r"\d+\D+\d+\D+\d+")


class Counts(NamedTuple):
    """Numbers of spans of a kind."""

    marked: int
    found: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float:
        return self.found / self.marked if self.marked else float("nan")

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else float("nan")


class Sentence(NamedTuple):
    """A text with its marked spans."""

    text: str
    spans: list[Span]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m safety.evaluate_redaction", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--data_dir", type=Path, metavar="FOLDER", help="data sets (default: DATA_DIR, else data)")
    add("--rows", choices=("odd", "even"), default="odd", help="held-out (odd) or development rows")
    add("--runs_dir", type=Path, default=Path("runs"), metavar="FOLDER", help="run folders (runs)")
    return parser


def main(args: list[str] | None = None) -> dict[str, float]:
    """Run a command line, such as `main([])`, and return the metrics.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    options = build_parser().parse_args(args)
    with exit_on_user_error("evaluate_redaction"):
        sentences = read_sentences((options.data_dir or Path(default_data_dir())) / FILE)
        sentences = sentences[options.rows == "odd" :: 2]
        counts, errors = evaluate(sentences)
        folder = new_run_folder(options.runs_dir, "redaction")
    claimed = total(counts[kind] for kind in CLAIMED if kind in counts)
    metrics = {"pii/recall": claimed.recall, "pii/precision": claimed.precision}
    kinds: dict[str, Any] = {
        kind: {
            **c._asdict(),
            "recall": c.recall,
            "precision": c.precision,
            "claimed": kind in CLAIMED,
        }
        for kind, c in counts.items()
    }
    results = {
        "metrics": metrics,
        "kinds": kinds,
        "sentences": len(sentences),
        "rows": options.rows,
        "git_commit": git_commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "errors.txt").write_text("\n".join(errors) + "\n", encoding="utf-8")
    rows = [[k, str(c.marked), f"{c.recall:.3f}", f"{c.precision:.3f}"] for k, c in counts.items()]
    rows.append(
        ["claimed", str(claimed.marked), f"{claimed.recall:.3f}", f"{claimed.precision:.3f}"]
    )
    Console().print(console_table(["kind", "marked", "recall", "precision"], rows))
    print(f"Results: {folder / 'results.json'}")
    return metrics


def read_sentences(path: Path) -> list[Sentence]:
    """Return the sentences with their spans of the kinds that are evaluated.

    Raises:
        UserError: If the file is missing or is not the expected one.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: put the file (sha256 {SHA256}) there, or name another folder "
            "with --data_dir or DATA_DIR."
        )
    verify(path, f"sha256:{SHA256}", "Replace it.")
    return [
        Sentence(record["full_text"], sorted(_spans(record["spans"])))
        for record in json.loads(read_utf8(path))
    ]


def _spans(marked: Iterable[dict[str, Any]]) -> Iterable[Span]:
    for span in marked:
        kind = KINDS.get(span["entity_type"])
        if kind is None or (kind == "DATE" and not CALENDAR_DATE.search(span["entity_value"])):
            continue
        yield Span(span["start_position"], span["end_position"], kind)


def evaluate(sentences: Sequence[Sentence]) -> tuple[dict[str, Counts], list[str]]:
    """Return the counts of each kind, and a line for each error."""
    counts: Counter[tuple[str, str]] = Counter()
    errors = []
    for text, marked in sentences:
        predicted = find_personal_data(text)
        for span in marked:
            is_found = _is_covered(span, predicted)
            counts[span.kind, "marked"] += 1
            counts[span.kind, "found"] += is_found
            if not is_found:
                errors.append(f"missed {_shown(text, span)}")
        for span in predicted:
            is_correct = any(_overlap(span, other) for other in marked)
            counts[span.kind, "predicted"] += 1
            counts[span.kind, "correct"] += is_correct
            if not is_correct:
                errors.append(f"wrong {_shown(text, span)}")
    kinds = [kind for kind in KINDS.values() if counts[kind, "marked"] or counts[kind, "predicted"]]
    found = {k: Counts(*(counts[k, field] for field in Counts._fields)) for k in kinds}
    return found, errors


def _is_covered(span: Span, predicted: Sequence[Span]) -> bool:
    """Return whether spans of the same kind cover a marked span."""
    position = span.start
    for start, end, kind in predicted:
        if kind == span.kind and start <= position < end:
            position = end
    return position >= span.end


def _overlap(one: Span, other: Span) -> bool:
    return one.kind == other.kind and one.start < other.end and other.start < one.end


def _shown(text: str, span: Span) -> str:
    before, after = text[max(0, span.start - 30) : span.start], text[span.end : span.end + 15]
    shown = f"{span.kind}: {before}[{text[span.start : span.end]}]{after}"
    return shown.replace("\n", "|")


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sums of counts."""
    return Counts(*map(sum, zip(*counts, strict=True)))


if __name__ == "__main__":
    main()
