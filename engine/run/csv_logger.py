"""CSVLogger for `metrics.csv` that appends to the file of a resumed run."""

import csv
from itertools import islice
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from engine.run.expectations import STAGE_AND_METRIC


class ResumableCSVLogger(CSVLogger):
    """Append to an existing `metrics.csv`; Lightning's CSVLogger deletes it."""

    @property
    def writer(self) -> "AppendingWriter":
        if self._experiment is None:
            self._experiment = AppendingWriter(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @property
    @override
    @rank_zero_experiment
    def experiment(self) -> "AppendingWriter":
        return self.writer

    def num_rows(self) -> int | None:
        """Return the number of saved rows (call `save` first), on rank zero; elsewhere None."""
        return self.writer.rows if getattr(rank_zero_only, "rank", 0) == 0 else None

    @rank_zero_only
    def truncate(self, rows: int) -> None:
        """Remove the rows logged after a checkpoint; the resumed run logs them again."""
        self.writer.truncate(rows)


class AppendingWriter(ExperimentWriter):
    """Append rows to an existing file and rewrite it atomically when its columns change."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.rows = 0
        self._path = Path(self.metrics_file_path)
        if self._path.is_file():
            self.truncate(None)

    @override
    def _check_log_dir_exists(self) -> None:
        """Keep an existing file; the parent deletes it."""

    @override
    def save(self) -> None:
        self.rows += len(self.metrics)
        super().save()

    def truncate(self, rows: int | None) -> None:
        """Keep the first `rows` rows (None: all complete ones)."""
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


def epoch_means(path: Path) -> dict[str, float]:
    """Return the means of the logged training metrics of the last epoch.

    Where validation happens within an epoch, it is the part of the epoch before the last validation
    that followed training.

    Args:
        path: `metrics.csv` of a run.
    """
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    interval: dict[str, list[float]] = {}
    epoch, validated = "", False
    for row in rows:
        logged = {name: STAGE_AND_METRIC.fullmatch(name) for name, value in row.items() if value}
        stages = {name: match[1] for name, match in logged.items() if match}
        train = {name: float(row[name]) for name, stage in stages.items() if stage == "train"}
        if train:
            if validated or row.get("epoch", epoch) != epoch:
                interval = {}
            epoch, validated = row.get("epoch", epoch), False
            for name, value in train.items():
                interval.setdefault(name, []).append(value)
        validated |= "val" in stages.values()
    return {name: sum(values) / len(values) for name, values in interval.items()}
