"""The run folder `runs/<experiment>/<version>/`, and where it is."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.guards.full_disk import find_disk_full


def new_run_folder(runs_dir: Path, experiment: str) -> Path:
    """Make the experiment's next numbered folder: 001, 002, …; never one that is there already.

    Raises:
        MisconfigurationException: If no folder can be made there.
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
            except FileExistsError:  # another run took it in this very moment
                continue
            return folder
    except OSError as error:
        if find_disk_full(error):
            raise
        raise MisconfigurationException(
            f"--runs_dir: no run folder can be made in {parent} ({error.strerror}): name another."
        ) from error


def experiment_name(configs: Sequence[str | Path]) -> str:
    """`configs/mnist/cnn.yaml` is the experiment `mnist-cnn`; overlays add nothing."""
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
    """The folder of a trainer's run. Only rank zero knows it without asking the others.

    A CSVLogger of the user's own comes after the one of the run.
    """
    own = next(logger for logger in trainer.loggers if isinstance(logger, CSVLogger))
    return Path(own.log_dir)
