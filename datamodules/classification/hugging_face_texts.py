"""Labelled texts by name from the Hugging Face hub: for machines with a network."""

from functools import cached_property
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.classification.base import TextClassificationDataModule
from datamodules.classification.labeled_texts import LabeledTexts, Row, number_labels
from datamodules.classification.text_table import sorted_labels, with_all_splits

NAMES = {"validation": "val", "dev": "val"}  # the hub's names of our splits
UNLABELLED = -1


class HuggingFaceTexts(TextClassificationDataModule):
    """A data set of the hub with a text and a label; needs `pip install datasets`.

    Its splits train, validation and test are used; one that is missing, or has no labels, is taken
    from the training texts. Takes TextClassificationDataModule's arguments, too.

    Args:
        name: Name on the hub, such as `cornell-movie-review-data/rotten_tomatoes`, or a folder.
        subset: The data set's configuration, such as `sst2` of `nyu-mll/glue`.
        text_column: Name of the column of the text.
        label_column: Name of the column of the label.
        val_fraction: Share of the training texts that validates where nothing else does.
        test_fraction: Share of the training texts that is tested on where nothing else is.
    """

    def __init__(
        self,
        name: str,
        subset: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **text: Any,
    ) -> None:
        super().__init__(**text)
        self.name = name
        self.subset = subset
        self.text_column = text_column
        self.label_column = label_column
        self.fractions = {"val": val_fraction, "test": test_fraction}

    @cached_property
    def _tables(self) -> dict[str, Any]:
        try:
            from datasets import load_dataset  # an extra: most do without
        except ImportError as error:
            raise MisconfigurationException(
                "HuggingFaceTexts needs the package `datasets`: pip install datasets. Files of "
                "your own are read without it: --data datamodules.TextTable."
            ) from error
        try:
            found = load_dataset(self.name, self.subset, cache_dir=str(self.data_dir / "hub"))
        except Exception as error:  # of many kinds, by what the hub and the network do
            raise MisconfigurationException(
                f"The data set {self.name!r} can't be had from the Hugging Face hub: "
                f"{str(error).splitlines()[0]}. Correct --data.name and --data.subset."
            ) from error
        if "train" not in found:
            raise MisconfigurationException(
                f"The data set {self.name!r} has no split called train, only {', '.join(found)}."
            )
        for split, table in found.items():
            missing = {self.text_column, self.label_column} - set(table.column_names)
            if missing:
                raise MisconfigurationException(
                    f"The split {split!r} of {self.name!r} has no column "
                    f"{', '.join(map(repr, sorted(missing)))}; it has "
                    f"{', '.join(map(repr, table.column_names))}. Name the right ones by "
                    "--data.text_column and --data.label_column."
                )
        return dict(found)

    @cached_property
    def class_names(self) -> list[str]:  # type: ignore[override]
        train = self._tables["train"]
        names = getattr(train.features[self.label_column], "names", None)
        return list(names) if names else sorted_labels(set(map(str, train[self.label_column])))

    def load(self) -> dict[str, LabeledTexts]:
        splits = {}
        for name, table in self._tables.items():
            labels = list(table[self.label_column])
            split = NAMES.get(name, name)
            if split not in ("train", "val", "test") or UNLABELLED in labels:
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
            splits[split] = number_labels(rows, self.class_names)
        return with_all_splits(splits, self.fractions)
