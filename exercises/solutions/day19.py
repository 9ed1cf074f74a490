"""Solutions of day 19."""

import numpy as np


def bigram_probabilities(tokens: np.ndarray, vocab_size: int, alpha: float = 1.0) -> np.ndarray:
    counts = np.full((vocab_size, vocab_size), alpha)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def mean_loss(probabilities: np.ndarray, tokens: np.ndarray) -> float:
    return float(-np.log(probabilities[tokens[:-1], tokens[1:]]).mean())


def conditional_entropy(probabilities: np.ndarray) -> float:
    values, vectors = np.linalg.eig(probabilities.T)
    stationary = vectors[:, np.argmin(abs(values - 1))].real
    stationary = stationary / stationary.sum()
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return float(-(stationary @ (probabilities * logs).sum(axis=1)))


def contexts(tokens: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    windows = np.lib.stride_tricks.sliding_window_view(tokens, size + 1)
    return windows[:, :-1], windows[:, -1]
