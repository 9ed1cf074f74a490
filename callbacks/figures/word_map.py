"""A map of words: vectors in two dimensions, like words near each other."""

from typing import Any, Literal, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from engine.run.figures import publish
from plotting.colored_text import escape_math, shorten

GROUPS = 6  # colours of the house


class WordMap(Callback):
    """Draws `figures/word_map.png`: frequent words of a trained net, placed by t-SNE or PCA.

    Distances between near words mean something, those between far ones little (van der Maaten &
    Hinton 2008); the colours are six groups by k-means in the space of the vectors themselves.
    Drawn after each validation that is no part of a training: `train.py fit` validates its best
    weights at its end. The task must have `words` and `unit_vectors()`.

    Args:
        words: How many words, 3 or more.
        skip: How many of the most frequent ones to leave out: "the", "and", and the like.
        method: `tsne`, or `pca`: the two directions in which the vectors differ most.
    """

    def __init__(
        self, words: int = 300, skip: int = 50, method: Literal["tsne", "pca"] = "tsne"
    ) -> None:
        for complaint, justified in {
            f"words must be at least 3, not {words}": words < 3,
            f"skip must be 0 or more, not {skip}": skip < 0,
            f"method must be tsne or pca, not {method!r}": method not in ("tsne", "pca"),
        }.items():
            if justified:
                raise ValueError(f"WordMap: {complaint}.")
        self.words = words
        self.skip = skip
        self.method = method

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            publish(trainer, "word_map", lambda: self._draw(cast(Any, pl_module)))

    def _draw(self, task: Any) -> Figure | None:
        known = [(number, word) for number, word in enumerate(task.words) if word]
        shown = known[min(self.skip, max(0, len(known) - self.words)) :][: self.words]
        if len(shown) < 3:
            return None
        vectors = task.unit_vectors()[[number for number, _ in shown]].cpu().numpy()  # (N, D)
        return map_figure([word for _, word in shown], *placed(vectors, self.method), self.method)


def placed(vectors: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) and groups (N,) of vectors (N, D), the same in every call."""
    from sklearn.cluster import KMeans  # seconds to import: once there is something to draw
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    groups = KMeans(min(GROUPS, len(vectors)), n_init=3, random_state=0).fit_predict(vectors)
    if method == "pca":
        return PCA(2, random_state=0).fit_transform(vectors), groups
    perplexity = min(15.0, (len(vectors) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=0)
    return tsne.fit_transform(vectors), groups


def map_figure(words: list[str], places: np.ndarray, groups: np.ndarray, method: str) -> Figure:
    """Draws each word at its place, in the colour of its group."""
    figure = Figure(figsize=(10, 8))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(f"{len(words)} words by {'t-SNE' if method == 'tsne' else 'PCA'}", loc="left")
    axes.scatter(places[:, 0], places[:, 1], s=0)  # so that the axes know their limits
    for word, (x, y), group in zip(words, places.tolist(), groups.tolist(), strict=True):
        axes.text(x, y, escape_math(shorten(word)), fontsize=7, color=f"C{group}", ha="center")
    return figure
