"""Solutions of day 32."""

import numpy as np


def layer_rates(layers: int, lr: float, decay: float) -> dict[str, float]:
    names = ["embeddings", *(f"layer.{index}" for index in range(layers)), "head"]
    return {name: lr * decay ** (layers + 1 - depth) for depth, name in enumerate(names)}


def linear_schedule(step: int, warmup: int, total_steps: int) -> float:
    if step < warmup:
        return step / warmup
    return max(0.0, (total_steps - step) / (total_steps - warmup))


def matthews_correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
    a, b = labels - labels.mean(), predictions - predictions.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])
