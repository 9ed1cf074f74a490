"""Drift of samples from a reference: population stability index and Kolmogorov-Smirnov test."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ks_2samp
from torch import Tensor

BINS = 10  # of the reference, with equal numbers of samples
MAX_PSI = 0.25  # by convention: below 0.1 stable, above 0.25 shifted
MAX_P_VALUE = 0.01  # of the KS test: the difference is not an accident of small samples
Features = dict[str, np.ndarray]  # name to values (N,)


class Drift(NamedTuple):
    """Difference of the distributions of a feature."""

    feature: str
    psi: float
    ks: float  # largest difference of the distribution functions
    p_value: float
    reference: float  # mean
    sample: float  # mean

    def is_shifted(self, max_psi: float = MAX_PSI) -> bool:
        return self.psi > max_psi and self.p_value < MAX_P_VALUE


def psi(reference: np.ndarray, sample: np.ndarray, bins: int = BINS) -> float:
    """Return the population stability index Σ (p − q) ln(p / q) over the bins of the reference.

    The bins are quantiles of the reference; half a sample is added to each, so that empty bins
    have finite terms.

    Args:
        reference: (N,).
        sample: (M,).
        bins: Number of bins; fewer if the reference has few different values.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    p, q = (
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        for values in (reference, sample)
    )
    return psi_of_counts(p, q)


def psi_of_counts(reference: np.ndarray, sample: np.ndarray) -> float:
    """Return the population stability index of two rows of counts."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (reference, sample))
    return float(((p - q) * np.log(p / q)).sum())


def compare(reference: Features, sample: Features) -> list[Drift]:
    """Return the drift of each feature, the largest PSI first."""
    found = []
    for name, values in reference.items():
        test = ks_2samp(values, sample[name])
        means = float(values.mean()), float(sample[name].mean())
        index = psi(values, sample[name])
        found.append(Drift(name, index, float(test.statistic), float(test.pvalue), *means))
    return sorted(found, key=lambda drift: -drift.psi)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class TextFeatures:
    """Features of texts; rare words are those that occur at most once in the reference.

    Args:
        reference: Texts, such as those of the training split.
    """

    def __init__(self, reference: Sequence[str]) -> None:
        counts = Counter(word for text in reference for word in words(text))
        self.known = {word for word, count in counts.items() if count > 1}

    def __call__(self, texts: Sequence[str]) -> Features:
        """Return the features of texts, each (N,)."""
        rows = []
        for text in texts:
            found = words(text)
            letters = sum(map(len, found))
            rare = sum(word not in self.known for word in found)
            other = sum(not (c.isalnum() or c.isspace()) for c in text)
            rows.append(
                (len(text), len(found), letters / max(1, len(found)), rare / max(1, len(found)),
                 other / max(1, len(text)), sum(c.isdigit() for c in text) / max(1, len(text)))
            )  # fmt: skip
        names = ("characters", "words", "letters per word", "rare words", "punctuation", "digits")
        return dict(zip(names, np.array(rows, dtype=float).reshape(-1, 6).T, strict=True))


def image_features(images: Tensor) -> Features:
    """Return brightness, contrast and sharpness of images (N, C, H, W) with values of a byte."""
    scaled = images.float() / 255
    steps = scaled.diff(dim=3).abs().mean(dim=(1, 2, 3)) + scaled.diff(dim=2).abs().mean(
        dim=(1, 2, 3)
    )
    columns = {
        "brightness": scaled.mean(dim=(1, 2, 3)),
        "contrast": scaled.std(dim=(1, 2, 3)),
        "sharpness": steps,
    }
    return {name: values.numpy() for name, values in columns.items()}


def drift_figure(reference: Features, samples: Mapping[str, Features], title: str) -> Figure:
    """Draw the distribution of each feature for a reference and other samples."""
    columns = min(3, len(reference))
    rows = -(-len(reference) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows + 0.4))
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, values) in zip(grid.flat, reference.items(), strict=False):
        everything = np.concatenate([values, *(sample[name] for sample in samples.values())])
        low, high = np.quantile(everything, [0, 0.995])
        edges = np.linspace(low, max(high, low + 1e-9), 30)
        parts = {"reference": values} | {key: sample[name] for key, sample in samples.items()}
        for label, part in parts.items():
            clipped = np.clip(part, low, high)
            axes.hist(clipped, edges, density=True, histtype="step", label=label)
        axes.set(xlabel=name, ylabel="density")
    for axes in list(grid.flat)[len(reference) :]:
        axes.remove()
    grid.flat[0].legend()
    figure.suptitle(title)
    return figure
