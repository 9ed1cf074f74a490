"""`metrics.csv` of a run, which a run that goes on continues where its checkpoint was."""

import csv
from itertools import islice
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override


class RunLog(CSVLogger):
    """Lightning's CSVLogger, which would delete what the run has logged before.

    Arguments are the parent's.
    """

    @property
    def writer(self) -> "ContinuedWriter":
        if self._experiment is None:
            self._experiment = ContinuedWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> "ContinuedWriter":
        return self.writer

    def rows(self) -> int | None:
        """Rows on the disk (call `save` first for all that were logged); None but on rank zero."""
        return self.writer.rows if getattr(rank_zero_only, "rank", 0) == 0 else None

    @rank_zero_only
    def keep(self, rows: int) -> None:
        """Forget what was logged after a checkpoint: the run that goes on will log it again."""
        self.writer.keep(rows)


class ContinuedWriter(ExperimentWriter):
    """Appends to the file that is there; rewrites it, where it must, in one step."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.rows = 0
        self._path = Path(self.metrics_file_path)
        if self._path.is_file():
            self.keep(None)

    @override
    def _check_log_dir_exists(self) -> None:
        """The parent would delete the file."""

    @override
    def save(self) -> None:
        self.rows += len(self.metrics)
        super().save()

    def keep(self, rows: int | None) -> None:
        if not self._path.is_file():
            return
        with self._path.open(newline="") as file:
            reader = csv.DictReader(file)
            kept = list(islice(reader, rows))
            self.metrics_keys = list(reader.fieldnames or [])
        self.rows = len(kept)
        self._write(kept, self.metrics_keys)

    @override
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with self._path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(rows, fieldnames)

    def _write(self, rows: list[dict[str, str]], fieldnames: list[str]) -> None:
        partial = self._path.with_suffix(".part")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self._path)
