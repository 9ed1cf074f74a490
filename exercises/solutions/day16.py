"""Solutions of day 16."""

import numpy as np


def additive_scores(
    query: np.ndarray, keys: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, v: np.ndarray
) -> np.ndarray:
    hidden = np.tanh((query @ w_q)[:, None] + keys @ w_k)  # (B, S, A)
    return hidden @ v


def general_scores(query: np.ndarray, keys: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (keys @ (query @ weight)[:, :, None])[:, :, 0]


def attend(
    scores: np.ndarray, values: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    allowed = np.where(mask, scores, -np.inf)
    exponentials = np.exp(allowed - allowed.max(axis=1, keepdims=True))
    weights = exponentials / exponentials.sum(axis=1, keepdims=True)
    return (weights[:, None] @ values)[:, 0], weights


def softmax_backward(grad: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights * (grad - (grad * weights).sum(axis=1, keepdims=True))
