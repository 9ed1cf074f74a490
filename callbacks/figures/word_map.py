"""Draw word vectors in two dimensions."""

from typing import Any, Literal, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from engine.guards.requirements import require_attributes
from engine.run.figures import publish
from plotting.colored_text import escape_math, shorten

NUM_CLUSTERS = 6  # colors of the style


class WordMap(Callback):
    """Draw `figures/word_map.png`: frequent words, projected by t-SNE or PCA.

    With t-SNE only distances between near words are meaningful (van der Maaten & Hinton 2008); the
    colors are six k-means clusters of the vectors themselves. Drawn after each validation outside
    of fit; `train.py fit` validates the best checkpoint at its end. The task needs `words` and
    `unit_vectors()`.

    Args:
        words: Number of words, at least 3.
        skip: Number of the most frequent words to omit ("the", "and", …), at least 0.
        method: `tsne`, or `pca` (the two directions of largest variance).
    """

    def __init__(
        self, words: int = 300, skip: int = 50, method: Literal["tsne", "pca"] = "tsne"
    ) -> None:
        if words < 3:
            raise ValueError(f"WordMap: words must be at least 3, got {words}.")
        if skip < 0:
            raise ValueError(f"WordMap: skip must be at least 0, got {skip}.")
        if method not in ("tsne", "pca"):
            raise ValueError(f"WordMap: method must be tsne or pca, got {method!r}.")
        self.words = words
        self.skip = skip
        self.method = method

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        names = ("words", "unit_vectors")
        require_attributes(self, pl_module, *names, such_as="modules.WordVectors")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            publish(trainer, "word_map", lambda: self._draw(cast(Any, pl_module)))

    def _draw(self, task: Any) -> Figure | None:
        words = [(index, word) for index, word in enumerate(task.words) if word]
        shown = words[min(self.skip, max(0, len(words) - self.words)) :][: self.words]
        if len(shown) < 3:
            return None
        vectors = task.unit_vectors()[[index for index, _ in shown]].cpu().numpy()  # (N, D)
        return map_figure([word for _, word in shown], *project(vectors, self.method), self.method)


def project(vectors: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, 2) and clusters (N,) of vectors (N, D); deterministic."""
    from sklearn.cluster import KMeans  # takes seconds to import
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    clusters = KMeans(min(NUM_CLUSTERS, len(vectors)), n_init=3, random_state=0)
    labels = clusters.fit_predict(vectors)
    if method == "pca":
        return PCA(2, random_state=0).fit_transform(vectors), labels
    perplexity = min(15.0, (len(vectors) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", metric="cosine", random_state=0)
    return tsne.fit_transform(vectors), labels


def map_figure(words: list[str], points: np.ndarray, clusters: np.ndarray, method: str) -> Figure:
    """Draw each word at its point (N, 2), in the color of its cluster (N,)."""
    figure = Figure(figsize=(10, 8))
    axes = figure.subplots()
    axes.axis("off")
    name = "t-SNE" if method == "tsne" else "PCA"
    axes.set_title(f"{name} of {len(words)} word vectors, colored by k-means cluster", loc="left")
    axes.scatter(points[:, 0], points[:, 1], s=0)  # sets the limits of the axes
    for word, (x, y), cluster in zip(words, points.tolist(), clusters.tolist(), strict=True):
        axes.text(x, y, escape_math(shorten(word)), fontsize=7, color=f"C{cluster}", ha="center")
    return figure
