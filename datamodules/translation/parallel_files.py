"""Your own translations: two text files per split, aligned line by line."""

from pathlib import Path
from typing import Any

from datamodules.loading.splits import split_rows
from datamodules.translation.base import ParallelTexts, TranslationDataModule, read_pairs
from engine.errors import UserError


class ParallelFiles(TranslationDataModule):
    """Serve two UTF-8 files per split, compressed (`*.gz`) or not.

    Takes the arguments of TranslationDataModule, and these.

    Args:
        train: Training files, as `[source, target]`.
        val: Validation files; by default `val_fraction` of the training pairs.
        test: Test files; by default `test_fraction` of the training pairs.
        val_fraction: Between 0 and 0.5.
        test_fraction: Between 0 and 0.5.
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
        for split, files in self.files.items():
            if files is not None and len(files) != 2:
                raise UserError(f"data.{split} must be [SOURCE, TARGET], got {len(files)} files.")
        for split, fraction in self.fractions.items():
            if not 0 < fraction < 0.5:
                raise UserError(f"data.{split}_fraction must be between 0 and 0.5, got {fraction}.")

    def load(self) -> dict[str, ParallelTexts]:
        splits = {
            split: read_pairs(*(Path(file).expanduser() for file in files))
            for split, files in self.files.items()
            if files is not None
        }
        size = len(splits["train"].sources)
        for seed, split in enumerate(("val", "test")):
            if split not in splits:
                train = splits["train"]
                number = max(1, round(self.fractions[split] * size))
                rest, part = split_rows(len(train.sources), number, seed)
                splits["train"], splits[split] = train.select(rest), train.select(part)
        return splits
