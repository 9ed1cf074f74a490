"""Which run `--resume` means, the checkpoint that it goes on from, and what may differ then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.run.config_differences import differences

# What may be told anew to a run that goes on, because it takes effect; all else would be overruled
# by the checkpoint, or would make another run of it.
CHANGEABLE = (
    *("resume", "ckpt_path", "config", "runs_dir", "experiment", "expect", "test_after_fit"),
    *("checkpoint", "tracking", "trainer", "data.init_args.data_dir", "auto_precision"),
)
FIXED = ("trainer.limit_train_batches", "trainer.overfit_batches")  # they move the epochs' ends


def checkpoint_of(folder: Path, read: Any) -> Path | None:
    """The last checkpoint of a run folder that can be read whole, else its best.

    Args:
        folder: The run folder.
        read: Reads or checks a checkpoint; raises MisconfigurationException if it is none.
    """
    names = ("last.ckpt", "last.ckpt.old", "best.ckpt", "best.ckpt.old")
    found = [folder / "checkpoints" / name for name in names]
    for path in (path for path in found if path.exists()):
        try:
            read(path)
        except MisconfigurationException:
            continue
        return path
    return None


def newest_unfinished_run(parent: Path, read: Any) -> Path | None:
    """The newest run folder of an experiment with a checkpoint, unless that run is complete.

    Args:
        parent: `runs/<experiment>`.
        read: See `checkpoint_of`.
    """
    folders = sorted(parent.glob("*/"), key=lambda p: (len(p.name), p.name), reverse=True)
    for folder in folders:
        if checkpoint_of(folder, read) is not None:
            return None if (folder / "results.json").is_file() else folder
    return None


def check_unchanged(saved: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Refuse what a run that goes on can't take up.

    Args:
        saved: The config that the run was begun with.
        asked: The config that it shall go on with.
        folder: Its run folder, for the message.

    Raises:
        MisconfigurationException: Naming the keys.
    """
    changed = sorted(
        (key, *values)
        for key, values in differences([saved, asked]).items()
        if not _may_change(key)
    )
    if changed:
        told = "; ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changed[:5])
        raise MisconfigurationException(
            f"--resume: {folder} was begun with another config: {told}. A run that goes on keeps "
            "its net, data, optimizer and seed. To start a new run from its weights: "
            f"--init_from {folder}/checkpoints/best.ckpt."
        )


def _may_change(key: str) -> bool:
    def within(names: tuple[str, ...]) -> bool:
        return any(key == name or key.startswith(name + ".") for name in names)

    return within(CHANGEABLE) and not within(FIXED)
