"""Typical wrong solutions of day 34."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "quantize_rows",
        "np.abs(weight).max(axis=1, keepdims=True)",
        "np.full((len(weight), 1), np.abs(weight).max())",
        "its own scale",
    ),
    Mistake(
        "quantize_rows",
        "np.clip(np.round(weight / scale), -127, 127)",
        "(weight / scale)",
        "astype cuts off",
    ),
    Mistake(
        "quantize_rows",
        "np.where(largest > 0, largest / 127, 1.0)",
        "largest / 127",
        "treat such rows apart",
    ),
    Mistake("quantize_groups", "(high - low) / 15", "(high - low) / 16", "15 steps"),
    Mistake("quantize_groups", "(grouped - low[:, :, None])", "grouped", "subtract the minimum"),
    Mistake(
        "rotate",
        "first * cos - second * sin, second * cos + first * sin",
        "first * cos + second * sin, second * cos - first * sin",
        "positive direction",
    ),
    Mistake("rotate", "np.arange(half) / half", "np.arange(half) / x.shape[1]", "-2i / D"),
    Mistake("training_bytes", "12 /", "8 /", "12 bytes"),
]
