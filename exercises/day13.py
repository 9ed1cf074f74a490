"""Day 13: recurrent networks: forward, back-propagation through time, clipping and batches."""

import numpy as np


def rnn_forward(
    x: np.ndarray, state: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Return the hidden states of a recurrent network.

        h_t = tanh(x_t W_x + h_t-1 W_h + b)

    Args:
        x: Inputs, (B, T, I).
        state: Initial state, (B, H).
        w_x: Weight of the input, (I, H).
        w_h: Weight of the state, (H, H).
        bias: Bias, (H,).

    Returns:
        Hidden states, (B, T, H).

    Source: Elman 1990, Finding structure in time.
    """
    raise NotImplementedError


def rnn_backward(
    grad: np.ndarray, states: np.ndarray, x: np.ndarray, state: np.ndarray, w_h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of W_x, W_h and b by back-propagation through time.

    A state acts on the loss directly and through the next state. Derive, from the last step to the
    first, with a_t the argument of tanh and dh_T+1 = 0:

        dh_t = grad_t + da_t+1 W_hᵀ,  da_t = dh_t · (1 - h_t²)

    Args:
        grad: Direct gradient of the loss with respect to each hidden state, (B, T, H).
        states: Hidden states of the forward pass, (B, T, H).
        x: Inputs, (B, T, I).
        state: Initial state, (B, H).
        w_h: Weight of the state, (H, H).

    Returns:
        Gradients of W_x (I, H), W_h (H, H) and b (H,).

    Source: Werbos 1990, Backpropagation through time: what it does and how to do it.
    """
    raise NotImplementedError


def clip_by_norm(gradients: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    """Scale gradients so that the norm of all of them together is at most max_norm.

    Args:
        gradients: Gradient of each parameter.
        max_norm: Largest L2 norm.

    Source: Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063), algorithm 1.
    """
    raise NotImplementedError


def stateful_batches(tokens: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """Cut a text into batches whose rows continue those of the batch before.

    Divide the text into `batch_size` streams of equal length (tokens that do not fit are dropped);
    batch k holds tokens k·steps to (k+1)·steps of each stream. Truncated back-propagation then
    carries the states over.

    Args:
        tokens: Ids of a text, (N,).
        batch_size: Number of rows.
        steps: Tokens of a row.

    Returns:
        Array of shape (number of batches, batch_size, steps).
    """
    raise NotImplementedError
