"""Which words of the source does a word of the translation look at? A matrix for each sentence."""

from typing import Any, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.run.figures import publish
from plotting.colored_text import escape_math, shorten

Alignment = tuple[list[str], list[str], np.ndarray]  # source, translation, weights (T, S)
COLUMNS = 2
LONGEST = 22  # tokens of a sentence that can still be read in a panel


class CrossAttention(Callback):
    """Draws `figures/cross_attention.png` after each validation of a fit, and after a test.

    A panel for each sentence: a row for each word that the net wrote, in which the words of the
    source are the darker, the more it looked at them. The task must have
    `alignment(text)`, and its `validation_step` and `test_step` return the texts `sources`, as
    modules.Translator's do. Of several processes, the first one's sentences are drawn.

    Args:
        sentences: How many to draw, at least 1, evenly spaced from the shortest to the longest.
    """

    def __init__(self, sentences: int = 4) -> None:
        if sentences < 1:
            raise ValueError(f"sentences must be at least 1, not {sentences}.")
        self.sentences = sentences
        self.sources: list[str] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.sources = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.sources = []

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.sources += (outputs or {}).get("sources", [])

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.sources += (outputs or {}).get("sources", [])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._draw(trainer, pl_module):
            rank_zero_warn(
                "CrossAttention draws nothing: it shows what a Translator's net looks at, as "
                "modules.nets.Transformer and Seq2Seq with attention do. Leave the callback out "
                "for others."
            )

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        sources, self.sources = self.sources, []
        align = getattr(pl_module, "alignment", None)
        sources = [source for source in sources if 0 < len(source.split()) <= LONGEST // 2]
        if align is None or not sources:
            return False
        places = np.linspace(0, len(sources) - 1, min(self.sentences, len(sources)))
        chosen = [align(sources[place]) for place in places.round().astype(int)]
        if None in chosen:
            return False
        alignments = cast(list[Alignment], chosen)
        publish(trainer, "cross_attention", lambda: attention_figure(alignments))
        return True


def attention_figure(alignments: list[Alignment]) -> Figure:
    """Draws weights (T, S) of each sentence: the translation downwards, the source to the right."""
    columns = min(COLUMNS, len(alignments))
    rows = -(-len(alignments) // columns)
    widest = max(len(source) for source, _, _ in alignments)
    tallest = max(len(target) for _, target, _ in alignments)
    cell = 0.22  # inches
    figure = Figure(figsize=(columns * (cell * widest + 1.3), rows * (cell * tallest + 1.2) + 0.4))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (source, target, weights) in zip(grid.flat, alignments, strict=False):
        _panel(axes, source, target, weights)
    figure.suptitle("What the net looks at: the source to the right, what it writes downwards")
    return figure


def _panel(axes: Axes, source: list[str], target: list[str], weights: np.ndarray) -> None:
    axes.axis("on")
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(len(source)), [escape_math(shorten(word)) for word in source], rotation=90
    )
    axes.set_yticks(range(len(target)), [escape_math(shorten(word)) for word in target])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
