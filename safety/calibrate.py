"""Choose the threshold of a guard on validation prompts.

    python -m safety.calibrate --guard best.ckpt --data data/guard

The threshold is the smallest one at which at most 2 % (--refused) of the harmless prompts of
val.csv are refused, those with alarming words among them. It is written beside the checkpoint,
best.calibration.json, where serve.py, rag.py and safety.score find it.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from safety.evaluate_guard import is_harmless, read_table
from safety.guard import HARMLESS, calibration_file, harm_probabilities, load_guard
from safety.guard_data import PLAIN


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m safety.calibrate", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--guard", type=Path, required=True, metavar="PATH", help="checkpoint of the guard")
    add("--data", type=Path, required=True, metavar="FOLDER", help="folder of safety.guard_data")
    add(
        "--refused",
        type=float,
        default=0.02,
        metavar="P",
        help="largest fraction of harmless prompts that are refused (0.02)",
    )
    return parser


def main(args: list[str] | None = None) -> dict[str, Any]:
    """Run a command line, such as `main(["--guard", …])`, and return the calibration.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("calibrate"):
        if not 0 <= options.refused < 1:
            raise UserError(f"--refused must be in [0, 1), got {options.refused}.")
        rows = read_table(options.data / "val.csv")
        guard = load_guard(options.guard)
        harmless = [row.text for row in rows if is_harmless(row)]
        harmful = [row.text for row in rows if row.rule == PLAIN and row.label != HARMLESS]
        if not harmless or not harmful:
            raise UserError(f"{options.data / 'val.csv'} needs harmful and harmless prompts.")
        scores = [np.array(harm_probabilities(guard, texts)) for texts in (harmless, harmful)]
        threshold = choose_threshold(scores[0], options.refused)
        found = {
            "threshold": threshold,
            "refused_harmless": float((scores[0] >= threshold).mean()),
            "refused_harmful": float((scores[1] >= threshold).mean()),
            "harmless": len(harmless),
            "harmful": len(harmful),
            "date": time.strftime("%Y-%m-%d"),
        }
        path = calibration_file(options.guard)
        try:
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}.") from error
    print(
        f"threshold {threshold:.4f} refuses {found['refused_harmless']:.1%} of {len(harmless):,} "
        f"harmless and {found['refused_harmful']:.1%} of {len(harmful):,} harmful prompts: {path}"
    )
    return found


def choose_threshold(harmless: Sequence[float] | np.ndarray, refused: float) -> float:
    """Return the smallest threshold at which at most a fraction of harmless prompts is refused.

    Args:
        harmless: Probabilities of harm of harmless prompts.
        refused: The fraction, in [0, 1).
    """
    descending = np.sort(np.asarray(harmless, dtype=np.float64))[::-1]
    allowed = math.floor(refused * len(descending))
    return float(np.nextafter(descending[allowed], np.inf))


if __name__ == "__main__":
    main()
