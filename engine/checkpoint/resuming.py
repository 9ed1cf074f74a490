"""Select the run and the checkpoint that `--resume` continues, and check its config."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.run.config_differences import differences

# Keys that may change on resume, because they take effect. All others would be overridden by the
# checkpoint or would change what the run is.
CHANGEABLE = (
    *("resume", "ckpt_path", "config", "runs_dir", "experiment", "expect", "test_after_fit"),
    *("checkpoint", "tracking", "trainer", "data.init_args.data_dir", "auto_precision"),
)
FIXED = ("trainer.limit_train_batches", "trainer.overfit_batches")  # they change an epoch's length


def checkpoint_of(folder: Path, read: Callable[[Path], Any]) -> Path | None:
    """Return the last readable checkpoint of a run folder, or else its best one.

    Args:
        folder: The run folder.
        read: Reads or checks a checkpoint; raises UserError if it is not one.
    """
    names = ("last.ckpt", "last.ckpt.old", "best.ckpt", "best.ckpt.old")
    paths = [folder / "checkpoints" / name for name in names]
    for path in (path for path in paths if path.exists()):
        try:
            read(path)
        except UserError:
            continue
        return path
    return None


def newest_unfinished_run(parent: Path, read: Callable[[Path], Any]) -> Path | None:
    """Return the newest run folder of an experiment that has a checkpoint, unless it is complete.

    Args:
        parent: `runs/<experiment>`.
        read: See `checkpoint_of`.
    """
    folders = sorted(parent.glob("*/"), key=lambda p: (len(p.name), p.name), reverse=True)
    for folder in folders:
        if checkpoint_of(folder, read) is not None:
            return None if (folder / "results.json").is_file() else folder
    return None


def check_unchanged(saved: Mapping[str, Any], current: Mapping[str, Any], folder: Path) -> None:
    """Refuse a changed config that a resumed run cannot adopt.

    Args:
        saved: The config that the run was started with.
        current: The config of the command line.
        folder: The run folder, for the message.

    Raises:
        UserError: Naming the keys.
    """
    changed = sorted(
        (key, *values)
        for key, values in differences([saved, current]).items()
        if not _may_change(key)
    )
    if changed:
        keys = "; ".join(f"{key}: {old!r} → {new!r}" for key, old, new in changed[:5])
        raise UserError(
            f"cannot resume {folder}: its config differs ({keys}). A resumed run keeps its "
            "network, data, optimizer and seed. To start a new run from its weights use "
            f"--init_from {folder}/checkpoints/best.ckpt."
        )


def _may_change(key: str) -> bool:
    def within(names: tuple[str, ...]) -> bool:
        return any(key == name or key.startswith(name + ".") for name in names)

    return within(CHANGEABLE) and not within(FIXED)
