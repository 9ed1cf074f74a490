"""Which words are alike? The nearest neighbours of some words, as a table."""

from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure

from engine.run.figures import BLUE, publish
from plotting.colored_text import escape_math, shorten

FREQUENT = 2_000  # words among which those are chosen that nobody named
COLUMN = 1.45  # inches


class WordNeighbours(Callback):
    """Writes `figures/word_neighbours.png` and `samples/word_neighbours.txt` of a trained net.

    That is after each validation that is no part of a training: `train.py fit` validates its best
    weights at its end, and so does `train.py validate`. The task must have `words` and
    `nearest(words, number)`.

    Args:
        words: Whose neighbours to show; by default 16 of the 2,000 most frequent words, evenly.
        number: How many neighbours of each.
    """

    def __init__(self, words: list[str] | None = None, number: int = 8) -> None:
        if number < 1:
            raise ValueError(f"WordNeighbours: number must be at least 1, not {number}.")
        if words is not None and not words:
            raise ValueError("WordNeighbours: words is empty; leave it out to have some chosen.")
        self.words = words
        self.number = number

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "validate":
            return
        task = cast(Any, pl_module)
        known = [word for word in task.words if word]
        asked = known[: FREQUENT : max(1, min(FREQUENT, len(known)) // 16)][:16]
        if self.words is not None:
            asked = [word for word in self.words if word in set(known)]
            if unknown := [word for word in self.words if word not in asked]:
                rank_zero_warn(f"WordNeighbours: no vectors of {', '.join(unknown)}: too rare.")
        found = dict(zip(asked, task.nearest(asked, self.number), strict=True)) if asked else {}
        publish(trainer, "word_neighbours", lambda: neighbours_figure(found) if found else None)
        folder = trainer.log_dir  # a broadcast: every process must ask
        if trainer.is_global_zero and folder is not None and found:
            path = Path(folder, "samples", "word_neighbours.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                f"{word}: {', '.join(f'{other} {cosine:.2f}' for other, cosine in others)}\n"
                for word, others in found.items()
            ]
            path.write_text("".join(lines), encoding="utf-8")


def neighbours_figure(found: dict[str, list[tuple[str, float]]]) -> Figure:
    """Draws a word in each line, and to its right the words most like it with their cosines."""
    columns = 1 + max(len(others) for others in found.values())
    width, height = COLUMN * columns, 0.24 * (len(found) + 2)
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(len(found) + 1, -1))
    axes.axis("off")
    axes.text(0.05, -0.4, "Nearest words, and their cosines", fontsize=11, va="center")
    for row, (word, others) in enumerate(found.items()):
        y = row + 0.6
        axes.text(
            0.05, y, escape_math(_cut(word)), fontsize=8, weight="bold", color=BLUE, va="center"
        )
        for column, (other, cosine) in enumerate(others, start=1):
            told = f"{_cut(other)} .{min(99, max(0, round(100 * cosine))):02d}"
            axes.text(column, y, escape_math(told), fontsize=8, va="center")
    return figure


def _cut(word: str) -> str:
    word = shorten(word)
    return word if len(word) <= 14 else f"{word[:13]}…"
