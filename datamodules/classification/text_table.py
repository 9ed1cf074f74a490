"""Texts of one's own: a CSV, TSV or JSON-lines file with a text and a label in each row."""

from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.classification.base import TextClassificationDataModule
from datamodules.classification.labeled_texts import (
    LabeledTexts,
    Row,
    number_labels,
    read_table,
    split_off,
)
from datamodules.language_modeling.base import refuse


class TextTable(TextClassificationDataModule):
    """Files with a text and a label in each row; takes TextClassificationDataModule's arguments.

    CSV and TSV begin with a row that names the columns, a TSV has no quotation marks, and each may
    be packed (`*.gz`). A text is as long as it is: none is left out.

    Args:
        train: The file that trains.
        val: The file that validates; without it, `val_fraction` of the training rows does.
        test: The file that is tested on; without it, `test_fraction` of the training rows is.
        text_column: Name of the column, or field, of the text.
        label_column: Name of the column, or field, of the label.
        classes: The labels in the order of their numbers; those of the training file, sorted,
            unless given.
        val_fraction: Between 0 and 1.
        test_fraction: Between 0 and 1.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        classes: list[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **text: Any,
    ) -> None:
        super().__init__(**text)
        together = (0 if val else val_fraction) + (0 if test else test_fraction)
        refuse(
            {
                f"val_fraction is {val_fraction}: it must lie between 0 and 1, such as 0.1.": (
                    not 0 < val_fraction < 1
                ),
                f"test_fraction is {test_fraction}: it must lie between 0 and 1, such as 0.1.": (
                    not 0 < test_fraction < 1
                ),
                f"val_fraction and test_fraction leave nothing to train on: {together:g}.": (
                    together >= 1
                ),
            }
        )
        self.files = {"train": train, "val": val, "test": test}
        self.text_column = text_column
        self.label_column = label_column
        self.classes = classes
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        return {
            split: list(read_table(Path(file), [self.text_column], self.label_column))
            for split, file in self.files.items()
            if file is not None
        }

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        """Labels that are all numbers are sorted as numbers."""
        return self.classes or sorted_labels({row.label for row in self._rows["train"]})

    def load(self) -> dict[str, LabeledTexts]:
        splits = {name: number_labels(rows, self.class_names) for name, rows in self._rows.items()}
        return with_all_splits(splits, self.fractions)


def sorted_labels(labels: set[str]) -> list[str]:
    """Sorted as whole numbers if all are, else by their letters."""
    whole = all(label.removeprefix("-").isdecimal() for label in labels)
    return sorted(labels, key=int) if whole else sorted(labels)


def with_all_splits(
    splits: dict[str, LabeledTexts], fractions: dict[str, float]
) -> dict[str, LabeledTexts]:
    """The splits, with what is missing of `val` and `test` taken from `train`."""
    size = len(splits["train"].labels)
    train, result = splits["train"], dict(splits)
    for number, split in enumerate(("val", "test")):
        if split not in result:
            wanted = max(1, round(fractions[split] * size))
            train, result[split] = split_off(train, wanted, seed=number)
    return {"train": train, "val": result["val"], "test": result["test"]}
