"""Run folders: `runs/<experiment>/<version>/`."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from engine.errors import UserError
from engine.guards.full_disk import find_disk_full


def new_run_folder(runs_dir: Path, experiment: str) -> Path:
    """Create the next numbered folder of an experiment: 001, 002, …; never reuse an existing one.

    Args:
        runs_dir: Folder of all experiments.
        experiment: Name of the experiment, its subfolder.

    Raises:
        UserError: If the folder cannot be created.
    """
    parent = runs_dir / experiment
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = max((int(p.name) for p in parent.iterdir() if p.name.isdigit()), default=0)
        while True:
            number += 1
            folder = parent / f"{number:03d}"
            try:
                folder.mkdir()
            except FileExistsError:  # created by a concurrent run
                continue
            return folder
    except OSError as error:
        if find_disk_full(error):
            raise
        raise UserError(
            f"cannot create a run folder in {parent} ({error.strerror}). "
            "Choose another folder with --runs_dir."
        ) from error


def experiment_name(configs: Sequence[str | Path]) -> str:
    """Return the name of an experiment: `mnist-cnn` for `configs/mnist/cnn.yaml`.

    Overlays, `configs/trainer/*.yaml` and all configs after the first, do not change it.
    """
    if not configs:
        return "unnamed"
    experiments = [path for path in configs if Path(path).parts[-3:-1] != ("configs", "trainer")]
    path = Path([*experiments, *configs][0]).with_suffix("")
    parts = path.parts
    if "configs" in parts:
        parts = parts[len(parts) - parts[::-1].index("configs") :]
        return "-".join(parts)
    return path.name


def run_folder(trainer: L.Trainer) -> Path:
    """Return the run folder of a trainer; on other ranks than zero a broadcast may be needed first.

    Our CSVLogger is the first one; any that the user adds follows.
    """
    own = next(logger for logger in trainer.loggers if isinstance(logger, CSVLogger))
    return Path(own.log_dir)
