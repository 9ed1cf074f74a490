"""Hold texts that a net wrote against those of people: BLEU, chrF and ROUGE, by the reference code.

    python -m scripts.score_text --hypotheses ours.txt --references test.en
    python -m scripts.score_text --hypotheses ours.txt --references a.en --references b.en

One text a line, in UTF-8; line n of every file is of the same sentence. BLEU (Papineni et al. 2002)
and chrF (Popović 2015) come from sacreBLEU, with the signature that says how they were counted, and
ROUGE-1, -2 and -L (Lin 2004, F1, with stemming) from Google's rouge-score: the mean over the lines,
of several references the best. All are from 0 to 100; nothing is downloaded.
"""

import argparse
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.table import Table

from engine.errors import exit_on_user_error

ROUGE = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m scripts.score_text", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--hypotheses", type=Path, required=True, metavar="FILE", help="what the net wrote")
    add(
        "--references",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="what people wrote; several files are several references",
    )
    add("--lowercase", action="store_true", help="read capital letters of BLEU and chrF as small")
    add("--json", type=Path, metavar="FILE", help="also write the scores there")
    return made


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run the command line; the same from Python: `main(["--hypotheses", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        Each score by its name, and its signature.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    with exit_on_user_error("score_text"):
        hypotheses = lines_of(options.hypotheses)
        references = [lines_of(path) for path in options.references]
        for path, lines in zip(options.references, references, strict=True):
            if len(lines) != len(hypotheses):
                raise MisconfigurationException(
                    f"{options.hypotheses} has {len(hypotheses):,} lines and {path} has "
                    f"{len(lines):,}: line n of one must be of the same sentence as line n of the "
                    "other."
                )
        scores = score(hypotheses, references, options.lowercase)
        if options.json:
            try:
                options.json.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise MisconfigurationException(f"--json: can't be written: {error}.") from error
    table = Table("metric", box=None, header_style="bold")
    table.add_column("score", justify="right")
    table.add_column("how it was counted")
    for name, one in scores.items():
        table.add_row(name, f"{one['score']:.2f}", one["signature"])
    Console().print(table, soft_wrap=True)
    if empty := sum(not line.strip() for line in hypotheses):
        Console(stderr=True).print(f"{empty:,} of {len(hypotheses):,} hypotheses are empty lines")
    return scores


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, packed if it is called `*.gz`.

    Raises:
        MisconfigurationException: If it can't be read, or has none.
    """
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except OSError as error:  # a damaged packed file is one, too
        raise MisconfigurationException(f"{path} can't be read: {error}.") from error
    except (EOFError, zlib.error) as error:
        raise MisconfigurationException(f"{path} is damaged or cut off: {error}.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise MisconfigurationException(
            f"{path} is not text in UTF-8: line {line} holds the byte "
            f"0x{error.object[error.start]:02x}. Convert it, as iconv -f latin1 -t utf-8 does."
        ) from error
    if not text.strip():
        raise MisconfigurationException(f"{path} holds no text: there is nothing to score.")
    # Only these end a line: others, such as U+2028, may stand within a sentence.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def score(
    hypotheses: list[str], references: list[list[str]], lowercase: bool = False
) -> dict[str, dict[str, Any]]:
    """Every score with its signature.

    Args:
        hypotheses: N texts.
        references: One list of N texts for each set of references.
        lowercase: Whether BLEU and chrF tell capital letters from small ones.

    Raises:
        MisconfigurationException: If the libraries are not installed.
    """
    try:
        from rouge_score import rouge_scorer
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MisconfigurationException(
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
