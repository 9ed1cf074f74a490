"""Draw the cross-attention weights of translated sentences."""

from typing import Any, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.guards.requirements import require_attributes
from engine.run.figures import publish
from plotting.colored_text import escape_math, shorten

Alignment = tuple[list[str], list[str], np.ndarray]  # source, translation, weights (T, S)
COLUMNS = 2
MAX_TOKENS = 22  # of a sentence that is still readable in a panel


class CrossAttention(Callback):
    """Draw `figures/cross_attention.png` after each validation of a fit, and after a test.

    There is a panel per sentence, with one row per generated token and one column per source token;
    darker is a larger weight. The task needs `alignment(text)`, and a `validation_step` and a
    `test_step` that return the texts `sources`, as modules.Translator has. Sentences are those of
    rank 0.

    Args:
        sentences: Number of sentences, at least 1, evenly spaced from the shortest to the longest.
    """

    def __init__(self, sentences: int = 4) -> None:
        if sentences < 1:
            raise ValueError(f"CrossAttention: sentences must be at least 1, got {sentences}.")
        self.sentences = sentences
        self.sources: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        require_attributes(self, pl_module, "alignment", such_as="modules.Translator")

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
                "CrossAttention draws nothing: it needs a network with cross-attention, such as "
                "modules.nets.Transformer or Seq2Seq with attention, and sentences of at most "
                f"{MAX_TOKENS // 2} words. Remove the callback from trainer.callbacks."
            )

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        sources, self.sources = self.sources, []
        sources = [source for source in sources if 0 < len(source.split()) <= MAX_TOKENS // 2]
        if not sources:
            return False
        indices = np.linspace(0, len(sources) - 1, min(self.sentences, len(sources)))
        task = cast(Any, pl_module)
        alignments = [task.alignment(sources[index]) for index in indices.round().astype(int)]
        if None in alignments:
            return False
        publish(trainer, "cross_attention", lambda: attention_figure(alignments))
        return True


def attention_figure(alignments: list[Alignment]) -> Figure:
    """Draw weights (T, S) of each sentence, with generated tokens as rows."""
    columns = min(COLUMNS, len(alignments))
    rows = -(-len(alignments) // columns)
    widest = max(len(source) for source, _, _ in alignments)
    tallest = max(len(target) for _, target, _ in alignments)
    cell = 0.22  # inches
    width = max(columns * (cell * widest + 1.3), 5.8)  # at least that of the title
    figure = Figure(figsize=(width, rows * (cell * tallest + 1.2) + 0.4))
    panels = [*figure.subplots(rows, columns, squeeze=False).flat]
    for axes in panels:
        axes.axis("off")
    for axes, (source, target, weights) in zip(panels, alignments, strict=False):
        _draw_panel(axes, source, target, weights)
    figure.suptitle("Cross-attention: source tokens (columns), generated tokens (rows)")
    return figure


def _draw_panel(axes: Axes, source: list[str], target: list[str], weights: np.ndarray) -> None:
    axes.axis("on")
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(len(source)), [escape_math(shorten(word)) for word in source], rotation=90
    )
    axes.set_yticks(range(len(target)), [escape_math(shorten(word)) for word in target])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
