"""Solutions of day 18."""

import numpy as np
import torch
from torch import Tensor


def naive_bayes(
    counts: np.ndarray, labels: np.ndarray, alpha: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    classes = np.eye(labels.max() + 1)[labels]  # (N, C)
    words = classes.T @ counts + alpha  # (C, V)
    return np.log(classes.mean(axis=0)), np.log(words / words.sum(axis=1, keepdims=True))


def max_over_time(embedded: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    windows = embedded.unfold(1, weight.shape[1], 1)  # (B, T - K + 1, D, K)
    activations = (torch.einsum("btdk,fkd->btf", windows, weight) + bias).relu()
    complete = mask[:, weight.shape[1] - 1 :]  # the last word of each window is a word
    return (activations * complete[:, :, None]).amax(dim=1)


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    counts = np.bincount(labels, minlength=num_classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0)
