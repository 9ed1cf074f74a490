"""Evaluate classifiers: intervals, calibration, worst mistakes, and tests between checkpoints.

    python -m scripts.evaluate --checkpoint runs/mnist-cnn/001/checkpoints/best.ckpt
    python -m scripts.evaluate --checkpoint runs/mnist-mlp/001/checkpoints/best.ckpt \\
        --checkpoint runs/mnist-cnn/001/checkpoints/best.ckpt --output compared
    python -m scripts.evaluate -c best.ckpt --data configs/mnist/cnn.yaml --output evaluation

The data come from the first checkpoint's run folder, or from the config given by --data: the test
split, or the validation split if there is none. `evaluation/` of that run folder, or --output, gets
report.md, results.json and figures for each checkpoint: confusion matrix, ROC and precision-recall
curves, worst mistakes, and reliability before and after temperature scaling; for texts also
mistakes.txt. The temperature is fitted on the validation split, and omitted if that split is
evaluated. Several checkpoints are compared by McNemar's test. Networks run in float32.
"""

import argparse
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from engine.checkpoint.reading import load_task
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from modules import Classifier
from scripts.evaluation.data import check_fits, check_tokenizer, open_data, run_folder_of
from scripts.evaluation.predictions import evaluate_checkpoint
from scripts.evaluation.report import Report


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.evaluate", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add(
        *("--checkpoint", "-c"),
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a .ckpt file of a classifier; several are compared",
    )
    add("--data", type=Path, metavar="CONFIG", help="config with a key `data` (default: the run's)")
    add("--data_dir", metavar="FOLDER", help="folder of the data sets (default: the config's)")
    add(
        "--split", choices=("test", "val"), help="split to evaluate (default: test if there is one)"
    )
    add(
        "--output", type=Path, metavar="FOLDER", help="default: evaluation/ in the first run folder"
    )
    add(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="bootstrap resamples (default: 1000)",
    )
    add(
        "--confidence",
        type=float,
        default=0.95,
        metavar="C",
        help="level of the intervals (default: 0.95)",
    )
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["--checkpoint", …])`.

    Args:
        args: Arguments; by default those of the process.

    Returns:
        The folder of the report.

    Raises:
        SystemExit: With code 2 after a user error, reported in one line on stderr.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("evaluate"):
        check_options(options)
        tasks = {
            name: load_task(path, Classifier, "a classifier's config, such as configs/mnist/*.yaml")
            for name, path in short_names(options.checkpoint).items()
        }
        folder = options.output or run_folder_of(options.checkpoint[0]) / "evaluation"
        data = open_data(options.checkpoint[0], options.data, options.data_dir)
        for name, task in tasks.items():
            check_fits(name, task, data)
            check_tokenizer(name, task, data)
        split = choose_split(data, options.split)
        evaluations = {}
        for name, task in tasks.items():
            with Console(stderr=True).status(f"{name}: {split}"):
                evaluations[name] = evaluate_checkpoint(
                    task, data, split, options.resamples, options.confidence
                )
        report = Report(evaluations, split, options)
        try:
            report.write(folder, data)
        except OSError as error:
            raise UserError(f"--output: cannot write {folder}: {error}.") from error
    report.print()
    print(f"Report: {folder / 'report.md'}")
    return folder


def check_options(options: argparse.Namespace) -> None:
    """Raise a UserError for options out of range."""
    if options.resamples < 10:
        raise UserError(f"--resamples must be at least 10, got {options.resamples}.")
    if not 0 < options.confidence < 1:
        raise UserError(f"--confidence must be between 0 and 1, got {options.confidence}.")
    if options.output is not None and options.output.is_file():
        raise UserError(f"--output: {options.output} is a file; expected a folder.")
    if len({path.resolve() for path in options.checkpoint}) < len(options.checkpoint):
        raise UserError("--checkpoint: the same checkpoint is given twice.")


def short_names(checkpoints: list[Path]) -> dict[str, Path]:
    """Name checkpoints by the shortest unique end of their paths: at least experiment and version.

    The file name is left out if it is the same for all.
    """
    whole = [path.resolve().with_suffix("").parts[1:] for path in checkpoints]
    least = 3
    if len({parts[-1] for parts in whole}) == 1 and min(map(len, whole)) > 1:
        whole, least = [parts[:-1] for parts in whole], 2
    whole = [tuple(part for part in parts if part != "checkpoints") for parts in whole]
    names: list[str] = []
    while len({*names}) < len(whole):  # ends, since full paths differ
        names = ["-".join(parts[-least:]) for parts in whole]
        least += 1
    return dict(zip(names, checkpoints, strict=True))


def choose_split(data: Any, asked: str | None) -> str:
    """Return the requested split; by default test if there is one, else validation."""
    tests = is_overridden("test_dataloader", data, L.LightningDataModule)
    has_test = tests and getattr(data, "has_test_split", True)
    if asked == "test" and not has_test:
        raise UserError(f"{type(data).__name__} has no test split; use --split val.")
    return asked or ("test" if has_test else "val")


if __name__ == "__main__":
    main()
