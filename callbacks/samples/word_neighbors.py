"""Show the nearest neighbors of some words."""

from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure

from engine.guards.requirements import require_attributes
from engine.run.figures import BLUE, publish
from plotting.colored_text import escape_math, shorten

MOST_FREQUENT = 2_000  # words from which the default words are chosen
NUM_DEFAULT = 16
COLUMN = 1.45  # inches
Neighbors = dict[str, list[tuple[str, float]]]  # word → (neighbor, cosine similarity)


class WordNeighbors(Callback):
    """Write `figures/word_neighbours.png` and `samples/word_neighbours.txt`.

    They are written after each validation outside of fit; `train.py fit` validates the best
    checkpoint at its end. The task needs `words` and `nearest(words, number)`.

    Args:
        words: Words whose neighbors to show; by default 16 of the 2,000 most frequent ones, evenly
            spaced.
        number: Number of neighbors per word, at least 1.
    """

    def __init__(self, words: list[str] | None = None, number: int = 8) -> None:
        if number < 1:
            raise ValueError(f"WordNeighbors: number must be at least 1, got {number}.")
        if words is not None and not words:
            raise ValueError("WordNeighbors: words is empty; omit it for frequent words.")
        self.words = words
        self.number = number

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_attributes(self, pl_module, "words", "nearest", such_as="modules.WordVectors")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "validate":
            return
        task = cast(Any, pl_module)
        vocabulary = [word for word in task.words if word]
        if self.words is None:
            step = max(1, min(MOST_FREQUENT, len(vocabulary)) // NUM_DEFAULT)
            words = vocabulary[:MOST_FREQUENT:step][:NUM_DEFAULT]
        else:
            unknown = [word for word in self.words if word not in vocabulary]
            words = [word for word in self.words if word not in unknown]
            if unknown:
                rank_zero_warn(f"WordNeighbors: not in the vocabulary: {', '.join(unknown)}.")
        nearest = task.nearest(words, self.number) if words else []
        neighbors: Neighbors = dict(zip(words, nearest, strict=True))
        publish(
            trainer, "word_neighbours", lambda: neighbors_figure(neighbors) if neighbors else None
        )
        folder = trainer.log_dir  # a collective
        if trainer.is_global_zero and folder is not None and neighbors:
            path = Path(folder, "samples", "word_neighbours.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                f"{word}: {', '.join(f'{other} {cosine:.2f}' for other, cosine in others)}\n"
                for word, others in neighbors.items()
            ]
            path.write_text("".join(lines), encoding="utf-8")


def neighbors_figure(neighbors: Neighbors) -> Figure:
    """Draw one row per word: the word, then its neighbors with their cosine similarities."""
    columns = 1 + max(len(others) for others in neighbors.values())
    figure = Figure(figsize=(COLUMN * columns, 0.24 * (len(neighbors) + 2)))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, columns), ylim=(len(neighbors) + 1, -1))
    axes.axis("off")
    axes.text(0.05, -0.4, "Nearest words by cosine similarity", fontsize=11, va="center")
    for row, (word, others) in enumerate(neighbors.items()):
        y = row + 0.6
        style: dict[str, Any] = {"fontsize": 8, "va": "center"}
        axes.text(0.05, y, escape_math(_truncate(word)), weight="bold", color=BLUE, **style)
        for column, (other, cosine) in enumerate(others, start=1):
            axes.text(column, y, escape_math(f"{_truncate(other)} {cosine:.2f}"), **style)
    return figure


def _truncate(word: str) -> str:
    word = shorten(word)
    return word if len(word) <= 14 else f"{word[:13]}…"
