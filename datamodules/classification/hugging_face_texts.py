"""Labeled texts from the Hugging Face hub, by name; needs a network connection."""

from functools import cached_property
from typing import Any

from datamodules.classification.base import LabeledTexts, TextClassificationDataModule
from datamodules.classification.text_table import add_missing_splits
from datamodules.loading.tables import Row, class_names_of, encode_labels
from engine.errors import UserError

NAMES = {"validation": "val", "dev": "val"}  # the hub's names → ours
UNLABELED = -1


class HuggingFaceTexts(TextClassificationDataModule):
    """Labeled texts from the Hugging Face hub; needs `pip install datasets`.

    Uses the splits train, validation and test; one that is missing or unlabeled is split off the
    training texts. Also takes the arguments of TextClassificationDataModule.

    Args:
        name: Name on the hub, such as `cornell-movie-review-data/rotten_tomatoes`, or a folder.
        subset: The data set's configuration, such as `sst2` of `nyu-mll/glue`.
        text_column: Column of the text.
        label_column: Column of the label.
        val_fraction: Fraction of the training texts for validation if there is no such split.
        test_fraction: Fraction of the training texts for testing if there is no such split.
    """

    def __init__(
        self,
        name: str,
        subset: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.subset = subset
        self.text_column = text_column
        self.label_column = label_column
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @cached_property
    def _tables(self) -> dict[str, Any]:
        try:
            from datasets import load_dataset  # optional dependency
        except ImportError as error:
            raise UserError(
                "HuggingFaceTexts needs the package `datasets`: pip install datasets. For your own "
                "files use --data datamodules.TextTable."
            ) from error
        try:
            found = load_dataset(self.name, self.subset, cache_dir=str(self.data_dir / "hub"))
        except Exception as error:  # the hub and the network raise many types
            raise UserError(
                f"The data set {self.name!r} cannot be loaded from the Hugging Face hub: "
                f"{str(error).splitlines()[0]}. Correct --data.name and --data.subset."
            ) from error
        if "train" not in found:
            raise UserError(
                f"The data set {self.name!r} has no split 'train', only {', '.join(found)}."
            )
        for split, table in found.items():
            missing = {self.text_column, self.label_column} - set(table.column_names)
            if missing:
                raise UserError(
                    f"The split {split!r} of {self.name!r} has no column "
                    f"{', '.join(map(repr, sorted(missing)))}; it has "
                    f"{', '.join(map(repr, table.column_names))}. Set --data.text_column and "
                    "--data.label_column."
                )
        return dict(found)

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        train = self._tables["train"]
        names = getattr(train.features[self.label_column], "names", None)
        if names:
            return list(names)
        return class_names_of([Row("", "", str(label)) for label in train[self.label_column]])

    def load(self) -> dict[str, LabeledTexts]:
        splits = {}
        for name, table in self._tables.items():
            labels = list(table[self.label_column])
            split = NAMES.get(name, name)
            if split not in ("train", "val", "test") or UNLABELED in labels:
                continue
            named = getattr(table.features[self.label_column], "names", None)
            rows = [
                Row(
                    f"{self.name}, {name}, row {number}",
                    text or "",
                    str(named[label] if named else label),
                )
                for number, (text, label) in enumerate(
                    zip(table[self.text_column], labels, strict=True), start=1
                )
            ]
            labels = encode_labels(rows, "class", self.class_names)
            splits[split] = LabeledTexts([row.text for row in rows], labels)
        return add_missing_splits(splits, self.fractions)
