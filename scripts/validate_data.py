"""Check the data of a config: schema, labels, duplicates, and drift of the splits.

    python -m scripts.validate_data --config configs/digits/cnn.yaml --output validation
    python -m scripts.validate_data --config configs/sst2/lstm.yaml --new reviews.csv --output out

Texts and images of the training, validation and test splits are read as the config says. Errors
(exit code 1): empty texts, images without contrast, classes without training samples, samples that
are in the training split and in another one (more than --max_leakage of that split), and a feature
or the labels of a split that drift from the training split: PSI above --max_psi, and p < 0.01 in
the Kolmogorov-Smirnov test. Duplicates within a split are reported. --new compares a table of new
texts in the same way, without labels. The output folder gets report.json, report.md and drift.png.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.loading.tables import read_table
from engine.errors import UserError, exit_on_user_error
from engine.process import escape_unencodable_output, prepare_process
from engine.run.figures import render
from scripts.evaluation.data import open_data
from scripts.evaluation.drift import (
    MAX_PSI,
    Drift,
    Features,
    TextFeatures,
    compare,
    drift_figure,
    image_features,
    psi_of_counts,
)

SPLITS = ("train", "val", "test")


class Samples(NamedTuple):
    """The samples of a split."""

    keys: list[str]  # hash of the content of each
    labels: list[int]
    features: Features
    empty: int  # texts without a letter, or images without contrast

    @property
    def checksum(self) -> str:
        """Hash of all samples and labels."""
        return hashlib.sha256(json.dumps([self.keys, self.labels]).encode()).hexdigest()


def read_splits(data: Any) -> dict[str, Samples]:
    """Return the samples of each split of a DataModule that holds them in memory.

    Raises:
        UserError: If it holds neither images nor labeled texts.
    """
    if isinstance(texts := getattr(data, "texts", None), dict):
        features = TextFeatures(flat(texts["train"].texts))
        return {
            name: text_samples(flat(texts[name].texts), texts[name].labels, features)
            for name in SPLITS
            if name in texts
        }
    if isinstance(splits := getattr(data, "splits", None), dict) and "train" in splits:
        found = {}
        for name in SPLITS:
            images, labels = splits[name]
            computed = image_features(images)
            keys = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
            empty = int((computed["contrast"] == 0).sum())
            found[name] = Samples(keys, labels.tolist(), computed, empty)
        return found
    raise UserError(f"{type(data).__name__} holds neither labeled texts nor images in memory.")


def flat(texts: list[Any]) -> list[str]:
    """Return pairs of texts as single texts."""
    return [text if isinstance(text, str) else "\n".join(text) for text in texts]


def text_samples(texts: list[str], labels: list[Any], features: TextFeatures) -> Samples:
    normalized = [" ".join(text.lower().split()) for text in texts]
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in normalized]
    return Samples(keys, labels, features(texts), sum(not text for text in normalized))


def validate(
    splits: dict[str, Samples], class_names: list[str] | None, max_psi: float, max_leakage: float
) -> dict[str, Any]:
    """Return the report: numbers of each split, and the errors."""
    train, errors = splits["train"], []
    report: dict[str, Any] = {"splits": {}, "drift": {}}
    known = set(train.keys)
    for name, samples in splits.items():
        size = len(samples.keys)
        counts = Counter(samples.labels) if class_names else Counter()
        leaked = sum(key in known for key in samples.keys) if name != "train" else 0
        row: dict[str, Any] = {
            "samples": size,
            "empty": samples.empty,
            "duplicates": size - len(set(samples.keys)),
            "also_in_train": leaked,
            "labels": {label: counts[k] for k, label in enumerate(class_names or [])},
        }
        report["splits"][name] = row
        if samples.empty:
            errors.append(f"{name}: {samples.empty} samples are empty.")
        if name == "train":
            missing = [label for label, count in row["labels"].items() if not count]
            errors += [f"train: the class {label} has no samples." for label in missing]
            continue
        if leaked > max_leakage * size:
            errors.append(f"{name}: {leaked} of {size} samples are in the training split, too.")
        drifts = compare(train.features, samples.features)
        found = {drift.feature: drift._asdict() for drift in drifts}
        if class_names and samples.labels:
            rows = [np.bincount(one.labels, minlength=len(class_names)) for one in (train, samples)]
            found["labels"] = {"psi": psi_of_counts(*rows)}
        report["drift"][name] = found
        errors += drift_errors(name, drifts, found, max_psi)
    return report | {"errors": errors}


def drift_errors(
    name: str, drifts: list[Drift], found: dict[str, Any], max_psi: float
) -> list[str]:
    errors = [
        f"{name}: {drift.feature} drifts from the training data: PSI {drift.psi:.3f}, "
        f"KS {drift.ks:.3f} (p = {drift.p_value:.1e}), mean {drift.sample:.4g} instead of "
        f"{drift.reference:.4g}."
        for drift in drifts
        if drift.is_shifted(max_psi)
    ]
    if found.get("labels", {}).get("psi", 0) > max_psi:
        errors.append(f"{name}: the labels drift: PSI {found['labels']['psi']:.3f}.")
    return errors


def markdown(report: dict[str, Any], config: Path) -> str:
    """Return the report as a page."""
    lines = [f"# Data of {config.name}", "", "| split | samples | empty | duplicates | in train |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, row in report["splits"].items():
        cells = (row["samples"], row["empty"], row["duplicates"], row["also_in_train"])
        lines.append(f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    lines += ["", "| split | feature | PSI | KS | p |", "| --- | --- | --- | --- | --- |"]
    for name, found in report["drift"].items():
        for feature, row in found.items():
            ks = f"{row['ks']:.3f} | {row['p_value']:.2g}" if "ks" in row else " | "
            lines.append(f"| {name} | {feature} | {row['psi']:.4f} | {ks} |")
    errors = report["errors"] or ["No errors."]
    return "\n".join([*lines, "", *(f"- {error}" for error in errors), "", "![](drift.png)", ""])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m scripts.validate_data", description=__doc__, allow_abbrev=False
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="CONFIG", help="config with a key `data`")
    add("--data_dir", metavar="FOLDER", help="folder of the data sets (default: the config's)")
    add("--new", type=Path, metavar="FILE", help="table of new texts (.csv, .tsv, .jsonl)")
    add("--text_column", default="text", help="column of the texts of --new (text)")
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder of the report")
    add("--max_psi", type=float, default=MAX_PSI, help=f"largest allowed drift ({MAX_PSI})")
    add("--max_leakage", type=float, default=0.01, help="largest share also in train (0.01)")
    return parser


def main(args: list[str] | None = None) -> Path:
    """Run a command line, such as `main(["--config", …, "--output", …])`.

    Returns:
        The output folder.

    Raises:
        SystemExit: With code 1 if the data have errors, 2 after a user error.
    """
    escape_unencodable_output()
    options = build_parser().parse_args(args)
    prepare_process()
    with exit_on_user_error("validate_data"):
        data: Any = open_data(Path(), options.config, options.data_dir)
        splits = read_splits(data)
        if options.new is not None:
            if not isinstance(getattr(data, "texts", None), dict):
                raise UserError("--new needs a config of texts.")
            rows = read_table(options.new, options.text_column, labeled=False)
            features = TextFeatures(flat(data.texts["train"].texts))
            splits["new"] = text_samples(flat([row.text for row in rows]), [], features)
        is_class = getattr(data, "target", "class") == "class"
        names = [str(name) for name in data.class_names] if is_class else None
        report = validate(splits, names, options.max_psi, options.max_leakage)
        others = {name: one.features for name, one in splits.items() if name != "train"}
        figure = render(
            lambda: drift_figure(splits["train"].features, others, f"{options.config.name}: splits")
        )
        folder: Path = options.output
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
            page = markdown(report, options.config)
            (folder / "report.md").write_text(page, encoding="utf-8")
            (folder / "drift.png").write_bytes(figure or b"")
        except OSError as error:
            raise UserError(f"--output: cannot write {folder}: {error}.") from error
    for message in report["errors"]:
        sys.stderr.write(f"validate_data: {message}\n")
    print(f"Report: {folder / 'report.md'}, {len(report['errors'])} errors")
    if report["errors"]:
        sys.exit(1)
    return folder


if __name__ == "__main__":
    main()
