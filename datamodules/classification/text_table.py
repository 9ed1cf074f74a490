"""Labeled texts or pairs of texts of your own, from CSV, TSV and JSON-lines files."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.loading.fingerprint import warn_if_changed
from datamodules.loading.splits import stratified_split
from datamodules.loading.tables import Row, Target, class_names_of, encode_labels, read_table
from engine.errors import UserError


class TextTable(TextClassificationDataModule):
    """Your own texts with labels, from CSV, TSV or JSON-lines files.

    The first row of a CSV or TSV names the columns; a TSV has no quotation marks; all may be
    compressed (`*.gz`). Also takes the arguments of TextClassificationDataModule.

    Args:
        train: Training file.
        val: Validation file; without it, `val_fraction` of each class in the training file.
        test: Test file; without it, `test_fraction` of each class in the training file.
        text_column: Column, or JSON field, of the text.
        second_text_column: Column, or JSON field, of the second text, for pairs of texts.
        label_column: Column, or JSON field, of the label.
        target: `class`: one class per text; `number`: a number per text, for regression; `labels`:
            any number of classes per text, as a JSON list or separated by `;`.
        classes: Class names in the order of their indices; by default the labels of the training
            file, sorted.
        val_fraction: Between 0 and 1.
        test_fraction: Between 0 and 1.
        skip_bad_rows: Skip invalid rows and report their number, instead of stopping at the first.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        target: Target = "class",
        classes: list[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        skip_bad_rows: bool = False,
        second_text_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        fractions = {"val": val_fraction, "test": test_fraction}
        for name, fraction in fractions.items():
            if not 0 < fraction < 1:
                raise UserError(f"{name}_fraction must be between 0 and 1, got {fraction}.")
        total = (0 if val else val_fraction) + (0 if test else test_fraction)
        if total >= 1:
            raise UserError(
                f"val_fraction and test_fraction add up to {total:g} and leave nothing to train on."
            )
        self.files = {"train": train, "val": val, "test": test}
        self.text_column = text_column
        self.second_text_column = second_text_column
        self.label_column = label_column
        self.target = target
        self.classes = classes
        self.fractions = fractions
        self.skip_bad_rows = skip_bad_rows

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        columns = (self.text_column, self.label_column, self.target)
        return {
            split: read_table(
                Path(file).expanduser(),
                *columns,
                skip_bad_rows=self.skip_bad_rows,
                second_text_column=self.second_text_column,
            )
            for split, file in self.files.items()
            if file is not None
        }

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """Names of the classes, or of the predicted number."""
        if self.target == "number":
            return [self.label_column]
        return class_names_of(self._rows["train"], self.classes)

    def load(self) -> dict[str, LabeledTexts]:
        splits = {
            name: LabeledTexts(
                [row.text for row in rows], encode_labels(rows, self.target, self.class_names)
            )
            for name, rows in self._rows.items()
        }
        return add_missing_splits(splits, self.fractions, stratify=self.target == "class")

    def state_dict(self) -> dict[str, str]:
        """Save a fingerprint of the training texts in checkpoints."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        warn_if_changed(self, state_dict)


def add_missing_splits(
    splits: dict[str, LabeledTexts], fractions: dict[str, float], stratify: bool = True
) -> dict[str, LabeledTexts]:
    """Take the missing ones of `val` and `test` from `train`, the same fraction of each class."""
    missing = [split for split in ("val", "test") if split not in splits]
    if not missing:
        return splits
    train = splits["train"]
    classes = train.labels if stratify else [0] * len(train.labels)
    parts = stratified_split(classes, [fractions[split] for split in missing])
    if not all(parts):
        raise UserError(
            f"{len(train.labels)} labeled texts are too few to train, validate and test with: at "
            "least one class needs 3 texts. Add texts, or give --data.val and --data.test."
        )
    taken = {
        split: train.select(sorted(rows))
        for split, rows in zip(["train", *missing], parts, strict=True)
    }
    return {split: (splits | taken)[split] for split in ("train", "val", "test")}
