"""Day 45: attention with an online softmax, bfloat16, and loss scaling."""

import numpy as np

Statistics = tuple[np.ndarray, np.ndarray]


def merge_statistics(first: Statistics, second: Statistics) -> Statistics:
    """Combine maximum and sum of exponentials of two blocks of scores.

    A block with scores s has m = max s and l = Σ exp(s - m). Return m and l of both blocks
    together, without the scores. A block without scores has m = -inf and l = 0.

    Args:
        first: (m, l) of a block, each of shape (...).
        second: (m, l) of another block, same shape.

    Source: Milakov & Gimelshein 2018 (arXiv:1805.02867), section 3.1.
    """
    raise NotImplementedError


def tiled_attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, block: int, causal: bool = False
) -> np.ndarray:
    """Return softmax(Q Kᵀ / √D) V without an array of (T, S) scores.

    Go through the keys in blocks, and keep for each query the maximum, the sum of exponentials and
    the weighted sum of values; whenever the maximum grows, rescale what was added so far.

    Args:
        query: Array of shape (T, D).
        key: Array of shape (S, D); S may be no multiple of `block`.
        value: Array of shape (S, E).
        block: Number of keys of a block.
        causal: Whether query t attends to keys 0 to t only (then T = S).

    Returns:
        Array of shape (T, E).

    Source: Dao et al. 2022 (arXiv:2205.14135), algorithm 1.
    """
    raise NotImplementedError


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round float32 numbers to the nearest bfloat16, ties to even; the result is float32.

    A bfloat16 is the upper half of a float32: sign, 8 bits of exponent, 7 of mantissa. Work on the
    bits (x.view(np.uint32)). There are no nan.

    Args:
        x: float32 array of any shape.
    """
    raise NotImplementedError


class LossScaler:
    """Dynamic scale of the loss for training in float16.

    `update` is called after each step with whether a gradient was inf or nan. If so, the step is
    skipped and the scale is halved; after `growth_interval` steps in a row without, it is doubled.

    Args:
        scale: Initial scale, kept in the attribute `scale`.
        growth_interval: Number of good steps before the scale is doubled.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2; torch.amp.GradScaler.
    """

    def __init__(self, scale: float = 2.0**16, growth_interval: int = 2000) -> None:
        raise NotImplementedError

    def update(self, overflow: bool) -> bool:
        """Adapt the scale and return whether the optimizer may take the step."""
        raise NotImplementedError
