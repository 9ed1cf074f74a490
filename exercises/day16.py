"""Day 16: attention of Bahdanau and Luong, masked softmax and its backward pass."""

import numpy as np


def additive_scores(
    query: np.ndarray, keys: np.ndarray, w_q: np.ndarray, w_k: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Return Bahdanau's scores of encoder states for a decoder state.

        score_s = v · tanh(query W_q + key_s W_k)

    Args:
        query: Decoder state, (B, Q).
        keys: Encoder states, (B, S, K).
        w_q: Weight of the query, (Q, A).
        w_k: Weight of the keys, (K, A).
        v: Vector of shape (A,).

    Returns:
        Scores of shape (B, S).

    Source: Bahdanau, Cho & Bengio 2015 (arXiv:1409.0473), section A.1.2.
    """
    raise NotImplementedError


def general_scores(query: np.ndarray, keys: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return Luong's "general" scores, query · W · key_s.

    Args:
        query: Decoder state, (B, Q).
        keys: Encoder states, (B, S, K).
        weight: Weight of shape (Q, K).

    Returns:
        Scores of shape (B, S).

    Source: Luong, Pham & Manning 2015 (arXiv:1508.04025), equation 8.
    """
    raise NotImplementedError


def attend(
    scores: np.ndarray, values: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the context vector and the attention weights.

    Weights are the softmax of the scores over the positions that the mask allows, and exactly 0
    elsewhere. Every row allows at least one position.

    Args:
        scores: Array of shape (B, S).
        values: Encoder states, (B, S, D).
        mask: Booleans of shape (B, S), True for words.

    Returns:
        Context (B, D) and weights (B, S).
    """
    raise NotImplementedError


def softmax_backward(grad: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the gradient of the scores from that of their softmax.

    Derive the Jacobian dp_i / ds_j = p_i (δ_ij - p_j), and from it a formula without any S x S
    matrix.

    Args:
        grad: Gradient of the weights, (B, S).
        weights: The softmax p, (B, S).

    Returns:
        Gradient of the scores, (B, S).
    """
    raise NotImplementedError
