"""Look at what classifiers have learnt, closely: intervals, calibration, mistakes, who is better.

    python -m scripts.evaluate --checkpoint runs/mnist-cnn/001/checkpoints/best.ckpt
    python -m scripts.evaluate --checkpoint runs/mnist-mlp/001/checkpoints/best.ckpt \\
        --checkpoint runs/mnist-cnn/001/checkpoints/best.ckpt --output compared
    python -m scripts.evaluate --checkpoint best.ckpt --data configs/mnist/cnn.yaml --output looked

The data are those of the first checkpoint's run folder, or of the config that --data names: its
test split, or the validation split where there is none. Into `evaluation/` of that run folder, or
--output, go report.md, results.json, and for each checkpoint figures: confusion matrix, ROC and
precision-recall curves, worst mistakes, and reliability before and after temperature scaling; of
texts also mistakes.txt. The temperature is fitted on the validation split; where that is what is
looked at, there is none. Several checkpoints are compared by McNemar's test. Nets run in float32.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.console import Console

from cli.diagnosis import explain, root_cause
from engine.checkpoint.reading import load_task
from engine.errors import exit_on_user_error
from engine.process import prepare_process
from modules import Classifier
from scripts.evaluation.look import look
from scripts.evaluation.report import Report


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m scripts.evaluate", description=__doc__, allow_abbrev=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add(
        *("--checkpoint", "-c"),
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a .ckpt file of a classifier; several are compared",
    )
    add("--data", type=Path, metavar="CONFIG", help="a config with `data:` (that of the run)")
    add("--data_dir", metavar="FOLDER", help="where the data sets are (as the config says)")
    add("--split", choices=("test", "val"), help="what to look at (test, where there is one)")
    add("--output", type=Path, metavar="FOLDER", help="(evaluation/ in the first run folder)")
    add("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (1000)")
    add("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (0.95)")
    return made


def main(args: list[str] | None = None) -> Path:
    """Run the command line; the same from Python: `main(["--checkpoint", …])`.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The folder that was written.

    Raises:
        SystemExit: With code 2 after a user's mistake, told in one sentence on stderr.
    """
    options = parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("evaluate"):
        check(options)
        tasks = {
            name: load_task(path, Classifier, "a classifier's config, such as configs/mnist/*.yaml")
            for name, path in named(options.checkpoint).items()
        }
        folder = options.output or run_folder_of(options.checkpoint[0]) / "evaluation"
        data = open_data(options)
        for name, task in tasks.items():
            check_fits(name, task, data)
            check_reads_alike(name, task, data)
        split = choose_split(data, options.split)
        looks = {}
        for name, task in tasks.items():
            with Console(stderr=True).status(f"{name}: {split}"):
                looks[name] = look(task, data, split, options.resamples, options.confidence)
        report = Report(looks, split, options)
        try:
            report.write(folder, data)
        except OSError as error:
            raise MisconfigurationException(f"{folder} can't be written: {error}.") from error
    report.print()
    print(f"look at: {folder / 'report.md'}")
    return folder


def check(options: argparse.Namespace) -> None:
    for complaint, justified in {
        f"--resamples is {options.resamples}: it must be 10 or more.": options.resamples < 10,
        f"--confidence is {options.confidence}: it must lie between 0 and 1.": (
            not 0 < options.confidence < 1
        ),
        f"--output: {options.output} is a file; name a folder.": (
            options.output is not None and options.output.is_file()
        ),
        "a checkpoint is named twice: name each --checkpoint once.": (
            len({path.resolve() for path in options.checkpoint}) < len(options.checkpoint)
        ),
    }.items():
        if justified:
            raise MisconfigurationException(complaint)


# What is looked at.


def named(checkpoints: list[Path]) -> dict[str, Path]:
    """Checkpoints by as much of their paths as tells them apart, at least experiment and version.

    `best` is no part of the name where all are the best.
    """
    whole = [path.resolve().with_suffix("").parts[1:] for path in checkpoints]
    least = 3
    if len({parts[-1] for parts in whole}) == 1 and min(map(len, whole)) > 1:
        whole, least = [parts[:-1] for parts in whole], 2
    whole = [tuple(part for part in parts if part != "checkpoints") for parts in whole]
    names: list[str] = []
    while len({*names}) < len(whole):  # files differ, so their whole paths do
        names = ["-".join(parts[-least:]) for parts in whole]
        least += 1
    return dict(zip(names, checkpoints, strict=True))


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder of `checkpoints/best.ckpt`.

    Raises:
        MisconfigurationException: If there is none.
    """
    folder = checkpoint.resolve().parent.parent
    if not (folder / "config.yaml").is_file():
        raise MisconfigurationException(
            f"{checkpoint} is in no run folder (there is no {folder / 'config.yaml'}): name the "
            "data by --data CONFIG, and a folder for the results by --output."
        )
    shown = checkpoint.parent.parent
    return shown if shown.resolve() == folder else folder


def open_data(options: argparse.Namespace) -> L.LightningDataModule:
    """The DataModule of a config, loaded."""
    config = options.data or run_folder_of(options.checkpoint[0]) / "config.yaml"
    try:
        told = yaml.safe_load(config.read_text())["data"]
    except OSError as error:
        raise MisconfigurationException(f"--data: {config} can't be read: {error}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise MisconfigurationException(
            f"--data: {config} is no config with a key `data`, as configs/mnist/cnn.yaml has it."
        ) from error
    told = {"class_path": told} if isinstance(told, str) else told
    if options.data_dir:
        told.setdefault("init_args", {})["data_dir"] = options.data_dir
    reader = ArgumentParser(exit_on_error=False)
    reader.add_subclass_arguments(L.LightningDataModule, "data")
    try:
        made = reader.instantiate_classes(reader.parse_object({"data": told}))
    except ArgumentError as error:
        keys = [key for key in reader.get_defaults().keys()]  # noqa: C416, SIM118
        raise MisconfigurationException(f"{config}: {explain(error, keys)}") from error
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"{config}: {root_cause(error)}") from error
    data: L.LightningDataModule = made.data
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def check_fits(name: str, task: Classifier, data: Any) -> None:
    """Refuse data that the net was not made for."""
    theirs = getattr(data, "class_names", None)
    if theirs is None or [*map(str, theirs)] != [*map(str, task.class_names)]:
        raise MisconfigurationException(
            f"{name} tells apart {', '.join(task.class_names)}, and the classes of "
            f"{type(data).__name__} are {', '.join(map(str, theirs)) if theirs else 'unknown'}: "
            "name the config of its data by --data."
        )
    ours, asked = task.preprocessing or {}, getattr(data, "preprocessing", None) or {}
    for key in sorted(ours.keys() & asked.keys()):
        if ours[key] != asked[key]:
            raise MisconfigurationException(
                f"{name} was trained on pictures of {key} {ours[key]}, and these have "
                f"{asked[key]}: nets that were fed differently are evaluated one by one."
            )


def check_reads_alike(name: str, task: Classifier, data: Any) -> None:
    """Refuse texts that were cut into other tokens than those which the net knows."""
    ours, theirs = task.hparams.get("tokenizer"), getattr(data, "tokenizer_json", None)
    if ours is None and theirs is None:
        return
    if ours is None or theirs is None or json.loads(ours) != json.loads(theirs):
        raise MisconfigurationException(
            f"{name} was trained with another tokenizer or context than {type(data).__name__} has "
            "here: the same numbers would be other words. Nets that read differently are evaluated "
            "one by one; --data names the config of a net's own data."
        )


def choose_split(data: Any, asked: str | None) -> str:
    """Test, unless validation is asked for, or there is nothing else."""
    tests = is_overridden("test_dataloader", data, L.LightningDataModule)
    has_test = tests and getattr(data, "has_test_split", True)
    if asked == "test" and not has_test:
        raise MisconfigurationException(
            f"{type(data).__name__} has no test split here: take --split val."
        )
    return asked or ("test" if has_test else "val")


if __name__ == "__main__":
    main()
