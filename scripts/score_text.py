"""Score generated texts against references: BLEU, chrF and ROUGE, by the reference implementations.

    python -m scripts.score_text --hypotheses ours.txt --references test.en
    python -m scripts.score_text --hypotheses ours.txt --references a.en --references b.en

One text per line, in UTF-8; line n of every file belongs to the same sentence. BLEU (Papineni et
al. 2002) and chrF (Popović 2015) come from sacreBLEU, with its signature, and ROUGE-1, -2 and -L
(Lin 2004, F1, with stemming) from Google's rouge-score: the mean over lines, with the best of
several references. Scores range from 0 to 100; nothing is downloaded.
"""

import argparse
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output

ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.score_text", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--hypotheses", type=Path, required=True, metavar="FILE", help="generated texts")
    add(
        "--references",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="reference texts; repeat for several references",
    )
    add("--lowercase", action="store_true", help="lowercase texts for BLEU and chrF")
    add("--json", type=Path, metavar="FILE", help="also write the scores as JSON")
    return parser


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line, such as `main(["--hypotheses", …])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        Score and signature by metric name.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    with exit_on_user_error("score_text"):
        hypotheses = read_lines(options.hypotheses)
        references = [read_lines(path) for path in options.references]
        for path, lines in zip(options.references, references, strict=True):
            if len(lines) != len(hypotheses):
                raise UserError(
                    f"{options.hypotheses} has {len(hypotheses):,} lines and {path} has "
                    f"{len(lines):,}: both must have one line per sentence, in the same order."
                )
        scores = score(hypotheses, references, options.lowercase)
        if options.json:
            try:
                options.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--json: cannot write {options.json}: {error}.") from error
    table = Table("metric", box=None, header_style="bold")
    table.add_column("score", justify="right")
    table.add_column("signature")
    for name, one in scores.items():
        table.add_row(name, f"{one['score']:.2f}", one["signature"])
    Console().print(table, soft_wrap=True)
    if empty := sum(not line.strip() for line in hypotheses):
        Console(stderr=True).print(f"{empty:,} of {len(hypotheses):,} hypotheses are empty")
    return scores


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, or of a gzip file `*.gz`.

    Raises:
        UserError: If it cannot be read or is empty.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except OSError as error:  # includes gzip.BadGzipFile
        raise UserError(f"cannot read {path}: {error}.") from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or truncated: {error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8: line {line} contains the byte "
            f"0x{error.object[error.start]:02x}. Convert it, e.g. with iconv -f latin1 -t utf-8."
        ) from error
    if not text.strip():
        raise UserError(f"{path} is empty.")
    # Not str.splitlines: U+2028 and others may occur within a sentence.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def score(
    hypotheses: list[str], references: list[list[str]], lowercase: bool = False
) -> dict[str, dict[str, Any]]:
    """Return every score with its signature.

    Args:
        hypotheses: N texts.
        references: One list of N texts for each set of references.
        lowercase: Lowercase texts for BLEU and chrF.

    Raises:
        UserError: If the libraries are not installed.
    """
    try:
        from rouge_score import rouge_scorer
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install sacrebleu rouge-score nltk."
        ) from error
    found: dict[str, dict[str, Any]] = {}
    for name, metric in (
        ("BLEU", BLEU(lowercase=lowercase)),
        ("chrF", CHRF(lowercase=lowercase)),
    ):
        value = metric.corpus_score(hypotheses, references).score
        found[name] = {"score": value, "signature": str(metric.get_signature())}
    scorer = rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=True)
    sums = dict.fromkeys(ROUGE, 0.0)
    for hypothesis, *others in zip(hypotheses, *references, strict=True):
        best = scorer.score_multi(others, hypothesis)
        for key in sums:
            sums[key] += best[key].fmeasure
    for key, name in ROUGE.items():
        mean = 100 * sums[key] / len(hypotheses)
        found[name] = {"score": mean, "signature": "F1, mean of lines, Porter stemmer, rouge-score"}
    return found


if __name__ == "__main__":
    main()
