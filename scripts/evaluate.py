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
import json
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from cli.arguments import settings_of
from cli.diagnosis import Schema, explain, root_cause
from engine.checkpoint.reading import load_task
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from modules import Classifier
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
        data = open_data(options)
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


def run_folder_of(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint in `checkpoints/`.

    Raises:
        UserError: If it is not in a run folder.
    """
    folder = checkpoint.resolve().parent.parent
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"{checkpoint} is not in a run folder ({folder / 'config.yaml'} does not exist): pass "
            "--data CONFIG and --output FOLDER."
        )
    shown = checkpoint.parent.parent
    return shown if shown.resolve() == folder else folder


def open_data(options: argparse.Namespace) -> L.LightningDataModule:
    """Instantiate and set up the DataModule of a config."""
    config = options.data or run_folder_of(options.checkpoint[0]) / "config.yaml"
    try:
        description = yaml.safe_load(config.read_text())["data"]
    except OSError as error:
        raise UserError(f"--data: cannot read {config}: {error}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--data: {config} is not a config with a key `data`; see configs/mnist/cnn.yaml."
        ) from error
    if isinstance(description, str):
        description = {"class_path": description}
    if options.data_dir:
        description.setdefault("init_args", {})["data_dir"] = options.data_dir
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    try:
        made = parser.instantiate_classes(parser.parse_object({"data": description}))
    except ArgumentError as error:
        settings = settings_of({"data": description})
        message = explain(error, settings, Schema({"data": L.LightningDataModule}))
        raise UserError(f"{config}: {message}") from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{config}: {root_cause(error)}") from error
    data: L.LightningDataModule = made.data
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def check_fits(name: str, task: Classifier, data: Any) -> None:
    """Raise a UserError if classes or preprocessing of the data are not those of the checkpoint."""
    theirs = getattr(data, "class_names", None)
    if theirs is None or [*map(str, theirs)] != [*map(str, task.class_names)]:
        raise UserError(
            f"{name} has the classes {', '.join(task.class_names)}, but {type(data).__name__} has "
            f"{', '.join(map(str, theirs)) if theirs else 'none'}: pass --data with the config of "
            "its own data."
        )
    ours, asked = task.preprocessing or {}, getattr(data, "preprocessing", None) or {}
    for key in sorted(ours.keys() & asked.keys()):
        if ours[key] != asked[key]:
            raise UserError(
                f"{name} was trained on images with {key} {ours[key]}, but these data have "
                f"{asked[key]}: evaluate checkpoints with different preprocessing separately."
            )


def check_tokenizer(name: str, task: Classifier, data: Any) -> None:
    """Raise a UserError if the tokenizer of the data is not that of the checkpoint."""
    ours, theirs = task.hparams.get("tokenizer"), getattr(data, "tokenizer_json", None)
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or json.loads(ours) != json.loads(theirs):
        raise UserError(
            f"{name} was trained with another tokenizer or context than {type(data).__name__} has: "
            "evaluate checkpoints with different tokenizers separately, each with --data CONFIG."
        )


def choose_split(data: Any, asked: str | None) -> str:
    """Return the requested split; by default test if there is one, else validation."""
    tests = is_overridden("test_dataloader", data, L.LightningDataModule)
    has_test = tests and getattr(data, "has_test_split", True)
    if asked == "test" and not has_test:
        raise UserError(f"{type(data).__name__} has no test split; use --split val.")
    return asked or ("test" if has_test else "val")


if __name__ == "__main__":
    main()
