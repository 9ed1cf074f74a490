"""Check before training that the task and the data have what a callback needs."""

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from engine.errors import UserError


def require_attributes(
    callback: Callback, module: LightningModule, *names: str, such_as: str
) -> None:
    """Raise a UserError if the task lacks attributes or methods that a callback needs.

    Args:
        callback: The callback; call this in its `setup`, before any work.
        module: The task.
        names: The attributes.
        such_as: Class path of a task or network that has them.
    """
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise UserError(
            f"trainer.callbacks: {type(callback).__name__} needs a task with "
            f"{' and '.join(f'`{name}`' for name in missing)}, such as {such_as}, not "
            f"{type(module).__name__}. Remove the callback."
        )


def require_classification(callback: Callback, trainer: Trainer, module: LightningModule) -> None:
    """Raise a UserError unless the task classifies samples that have one class each."""
    require_attributes(callback, module, "class_names", such_as="modules.Classifier")
    target = getattr(getattr(trainer, "datamodule", None), "target", "class")
    if target != "class":
        raise UserError(
            f"trainer.callbacks: {type(callback).__name__} needs data with one class per sample, "
            f"not --data.target {target}. Remove the callback."
        )


def class_logits(callback: Callback, outputs: Any, batch: Any) -> tuple[Any, Any]:
    """Return logits (B, K) and targets (B,) of a test batch, or warn and return None for both.

    Only the test shows what a `test_step` returns; a finished training should not fail for it.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
    targets = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    if getattr(logits, "ndim", 0) == 2 and getattr(targets, "ndim", 0) == 1:
        return logits, targets
    rank_zero_warn(
        f"{type(callback).__name__} draws nothing: it needs batches `(inputs, targets)` with "
        'targets (B,) and a `test_step` that returns `{"logits": (B, K)}`.'
    )
    return None, None
