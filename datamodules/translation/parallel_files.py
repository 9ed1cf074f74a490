"""Translations of one's own: two text files, line by line each other's translation."""

from pathlib import Path
from typing import Any

from datamodules.language_modeling.base import refuse
from datamodules.loading.splits import split_rows
from datamodules.translation.base import ParallelTexts, TranslationDataModule, read_pairs


class ParallelFiles(TranslationDataModule):
    """Two files a split, in UTF-8, perhaps packed (`*.gz`); and TranslationDataModule's arguments.

    Args:
        train: The files that train, as `[source, target]`.
        val: Those that validate; without them, `val_fraction` of the training pairs does.
        test: Those that are tested on; without them, `test_fraction` of the training pairs is.
        val_fraction: Between 0 and 1.
        test_fraction: Between 0 and 1.
    """

    def __init__(
        self,
        train: list[str],
        val: list[str] | None = None,
        test: list[str] | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        **translation: Any,
    ) -> None:
        super().__init__(**translation)
        self.files = {"train": train, "val": val, "test": test}
        self.fractions = {"val": val_fraction, "test": test_fraction}
        refuse(
            {
                f"{split} names {len(files)} files: give two, a source and a target.": True
                for split, files in self.files.items()
                if files is not None and len(files) != 2
            }
            | {
                f"{split}_fraction is {share}: it must lie between 0 and 0.5, such as 0.05.": True
                for split, share in self.fractions.items()
                if not 0 < share < 0.5
            }
        )

    def load(self) -> dict[str, ParallelTexts]:
        splits = {
            split: read_pairs(Path(files[0]), Path(files[1]))
            for split, files in self.files.items()
            if files is not None
        }
        size = len(splits["train"].sources)
        for number, split in enumerate(("val", "test")):
            if split not in splits:
                train = splits["train"]
                wanted = max(1, round(self.fractions[split] * size))
                rest, part = split_rows(len(train.sources), wanted, seed=number)
                splits["train"], splits[split] = train.select(rest), train.select(part)
        return splits
