"""Count the samples and tokens of a batch."""

from typing import Any

from torch import Tensor


def samples_and_tokens(batch: Any) -> tuple[int, int]:
    """Return the number of samples, and of tokens where each sample has several targets, else 0.

    Targets are the second item of a batch `(inputs, targets)`. A batch of another form counts the
    samples of its first tensor; one without tensors counts none.
    """
    targets = batch[1] if isinstance(batch, tuple | list) and len(batch) == 2 else batch
    while isinstance(targets, dict | tuple | list) and targets:
        targets = next(iter(targets.values())) if isinstance(targets, dict) else targets[0]
    if not isinstance(targets, Tensor) or targets.ndim == 0:
        return 0, 0
    is_sequence = targets.ndim > 1 and not targets.is_floating_point()  # else probabilities
    return len(targets), targets.numel() if is_sequence else 0
