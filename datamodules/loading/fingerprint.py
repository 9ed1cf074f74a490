"""Hashes of training data, and whether the data changed before a run was resumed."""

import hashlib
from collections.abc import Iterable
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


def fingerprint(rows: Iterable[Any]) -> dict[str, str]:
    """Return a hash of training rows, as a DataModule's `state_dict`."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return {"fingerprint": digest.hexdigest()}


def hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of the content of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.hexdigest()


def warn_if_changed(data: L.LightningDataModule, saved: dict[str, str]) -> None:
    """Warn if a resumed training run has other training data than its checkpoint."""
    trainer = data.trainer
    if trainer is not None and trainer.state.fn == "fit" and data.state_dict() != saved:
        rank_zero_warn(
            f"The training data of {type(data).__name__} changed since the checkpoint was saved: "
            "the resumed run differs from an uninterrupted one."
        )
