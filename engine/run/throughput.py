"""Count the samples and tokens of a batch."""

from typing import Any


def samples_and_tokens(batch: Any) -> tuple[int, int]:
    """Rows of a batch (inputs, targets), and its targets where a row has several, else 0."""
    targets = batch[1]
    several = targets.ndim > 1 and not targets.is_floating_point()  # those are probabilities
    return len(targets), targets.numel() if several else 0
