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
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from callbacks.coloured_text import Passage
from callbacks.confusion_matrix import confusion_figure
from callbacks.denormalise import made_visible
from callbacks.figures import render
from callbacks.mistakes import (
    Answers,
    as_text,
    mistaken_texts_figure,
    mistakes_figure,
    passages_of,
    visible,
)
from callbacks.reliability_diagram import reliability_figure, sums_by_confidence
from callbacks.tables import markdown_table
from modules import Classifier
from modules.checkpoint import open_task
from scripts.evaluation import (
    BINS,
    Interval,
    McNemar,
    confusion,
    fit_temperature,
    mcnemar,
    metrics_of,
    of_each_class,
    with_intervals,
)
from scripts.threshold_curves import threshold_figure
from train import prepare_process
from user_errors import exit_on_user_error, explain, without_union

ROWS, COLUMNS = 4, 8  # of the grid of mistakes
Reliability = tuple[float, float]  # cross-entropy, calibration error


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
            name: open_task(path, Classifier, "a classifier's config, such as configs/mnist/*.yaml")
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
                looks[name] = look(task, data, split, options)
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
        raise MisconfigurationException(f"{config}: {without_union(error)}") from error
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


class Look(NamedTuple):
    """What is known about a checkpoint."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N,)
    worst: Answers | None  # where examples are pictures
    texts: list[Passage] | None  # the same, where they are texts
    metrics: dict[str, Interval]
    temperature: float | None
    before: Reliability
    after: Reliability | None


def look(task: Classifier, data: Any, split: str, options: argparse.Namespace) -> Look:
    logits, labels, worst = answers(task, data, split)
    temperature = after = None
    if split != "val":
        temperature = fit_temperature(*answers(task, data, "val")[:2])
        after = reliability(logits / temperature, labels)
    metrics = with_intervals(logits, labels, options.resamples, options.confidence)
    texts = None
    if worst is not None and worst.samples.ndim == 2:
        texts, worst = passages_of(worst, task, task.class_names), None
    return Look(
        logits, labels, worst, texts, metrics, temperature, reliability(logits, labels), after
    )


@torch.inference_mode()
def answers(task: Classifier, data: Any, split: str) -> tuple[Tensor, Tensor, Answers | None]:
    """Logits and labels of a split, and the pictures or texts that were answered worst."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task.to(device).eval()
    logits, labels, worst = [], [], None
    for batch in getattr(data, f"{split}_dataloader")():
        inputs, targets = data.on_after_batch_transfer(move_data_to_device(batch, device), 0)
        made = task(inputs).float()  # (B, K)
        samples = visible(inputs)
        if samples is not None:
            confidences, predicted = made.softmax(dim=1).max(dim=1)  # (B,)
            new = Answers(samples, targets, predicted, confidences).worst(ROWS * COLUMNS)
            worst = new if worst is None else worst.and_also(new).worst(ROWS * COLUMNS)
        logits.append(made.cpu())
        labels.append(targets.cpu())
    kept = None if worst is None else Answers(*(values.cpu() for values in worst))
    return torch.cat(logits).clone(), torch.cat(labels).clone(), kept


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    metrics = metrics_of(logits.shape[1])
    return metrics["loss"](logits, labels).item(), metrics["ece"](logits, labels).item()


# What is told.


class Report:
    """Tables and figures of one or more looks at the same examples."""

    def __init__(self, looks: dict[str, Look], split: str, options: argparse.Namespace) -> None:
        self.looks, self.split, self.options = looks, split, options
        self.labels = next(iter(looks.values())).labels
        self.tests: dict[tuple[str, str], McNemar] = {
            (a, b): mcnemar(looks[a].logits, looks[b].logits, self.labels)
            for a, b in combinations(looks, 2)
        }

    def tables(self, names: list[str]) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each table."""
        share = f"{self.options.confidence:.0%}"
        size = f"{len(self.labels):,} examples of {self.split}"
        metrics = [
            [metric, *(str(look.metrics[metric]) for look in self.looks.values())]
            for metric in metrics_of(len(names))
        ]
        tables = [(f"Metrics on {size}, {share} intervals", ["metric", *self.looks], metrics)]
        calibration = [
            [
                name,
                f"{look.before[0]:.4f}",
                f"{look.before[1]:.4f}",
                "—" if look.temperature is None else f"{look.temperature:.3f}",
                *(f"{x:.4f}" for x in look.after or ()),
            ]
            for name, look in self.looks.items()
        ]
        header = ["checkpoint", "loss", "ECE", "temperature", "loss after", "ECE after"]
        tables.append(("Calibration", header[: len(calibration[0])], calibration))
        header = ["class", "precision", "recall", "f1", "support"]
        for name, look in self.looks.items():
            classes = zip(names, of_each_class(look.logits, look.labels), strict=True)
            rows = [
                [label, *(f"{row[key]:.4f}" for key in header[1:4]), f"{row['support']:,}"]
                for label, row in classes
            ]
            tables.append((f"Classes: {name}", header, rows))
        if self.tests:
            rows = [
                [a, b, str(test.only_first), str(test.only_second), f"{test.p_value:.3g}"]
                for (a, b), test in self.tests.items()
            ]
            header = ["first", "second", "only first right", "only second right", "p"]
            tables.append(("McNemar's test, exact", header, rows))
        return tables

    def write(self, folder: Path, data: Any) -> None:
        """report.md, results.json and the figures."""
        names = [str(name) for name in data.class_names]
        self.told = self.tables(names)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# {' and '.join(self.looks)}", "", *self.explanation()]
        for title, header, rows in self.told:
            lines += ["", f"## {title}", "", markdown_table(header, rows).rstrip("\n")]
        for name, look in self.looks.items():
            lines += ["", f"## Figures: {name}", ""]
            for title, draw in figures(look, names, data).items():
                path = folder / name / f"{title}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(render(draw) or b"")
                lines.append(f"![{title.replace('_', ' ')}]({name}/{title}.png)")
            if look.texts is not None:
                wrong = int((look.logits.argmax(dim=1) != look.labels).sum())
                told = as_text(look.texts, [len(look.labels), wrong])
                (folder / name / "mistakes.txt").write_text(told, encoding="utf-8")
        (folder / "report.md").write_text("\n".join(lines) + "\n")
        (folder / "results.json").write_text(json.dumps(self.as_data(names), indent=2) + "\n")

    def explanation(self) -> list[str]:
        paths = ", ".join(f"`{path}`" for path in self.options.checkpoint)
        lines = [
            f"Of {paths}. In brackets: where a figure lies for {self.options.confidence:.0%} of "
            f"{self.options.resamples:,} samples drawn from these examples with replacement."
        ]
        if self.split == "val":
            return [
                *lines,
                "No temperature: it is fitted on the validation split, which is looked at here.",
            ]
        return [*lines, "The temperature was fitted on the validation split."]

    def as_data(self, names: list[str]) -> dict[str, Any]:
        """Everything as plain values."""
        paths = [str(path) for path in self.options.checkpoint]
        return {
            "split": self.split,
            "examples": len(self.labels),
            "class_names": names,
            "resamples": self.options.resamples,
            "confidence": self.options.confidence,
            "checkpoints": {
                name: {
                    "path": path,
                    "metrics": {metric: x._asdict() for metric, x in look.metrics.items()},
                    "classes": dict(
                        zip(names, of_each_class(look.logits, look.labels), strict=True)
                    ),
                    "confusion_matrix": confusion(look.logits, look.labels).tolist(),
                    "temperature": look.temperature,
                    "before": dict(zip(("loss", "ece"), look.before, strict=True)),
                    "after": look.after and dict(zip(("loss", "ece"), look.after, strict=True)),
                }
                for path, (name, look) in zip(paths, self.looks.items(), strict=True)
            },
            "mcnemar": [
                {"first": a, "second": b, **test._asdict()} for (a, b), test in self.tests.items()
            ],
        }

    def print(self) -> None:
        """The tables on the console; many classes are left to the report."""
        for title, header, rows in self.told:
            if len(rows) > 20:
                continue
            table = Table(title=title, title_justify="left", box=None, header_style="bold")
            for number, name in enumerate(header):
                table.add_column(name, justify="right" if number else "left", overflow="fold")
            for row in rows:
                table.add_row(*row)
            Console().print(table)


def figures(look: Look, names: list[str], data: Any) -> dict[str, Callable[[], Figure]]:
    """What to draw, by name of file."""
    logits, labels, worst = look.logits, look.labels, look.worst
    drawn: dict[str, Callable[[], Figure]] = {
        "confusion_matrix": lambda: confusion_figure(confusion(logits, labels), names),
        "threshold_curves": lambda: threshold_figure(logits, labels, names),
        "reliability_diagram": lambda: reliability_figure(
            *sums_by_confidence(logits, labels, BINS).numpy()
        ),
    }
    if look.temperature is not None:
        scaled = logits / look.temperature
        drawn["reliability_diagram_scaled"] = lambda: reliability_figure(
            *sums_by_confidence(scaled, labels, BINS).numpy()
        )
    tally = [len(labels), int((logits.argmax(dim=1) != labels).sum())]
    if look.texts is not None:
        passages = look.texts
        drawn["mistakes"] = lambda: mistaken_texts_figure(passages, tally)
    if worst is not None:
        pictures = made_visible(
            worst.samples, getattr(data, "mean", None), getattr(data, "std", None)
        )
        drawn["mistakes"] = lambda: mistakes_figure(pictures, worst, names, COLUMNS, tally)
    return drawn


if __name__ == "__main__":
    main()
