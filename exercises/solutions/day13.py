"""Solutions of day 13."""

import numpy as np


def rnn_forward(
    x: np.ndarray, state: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    states = []
    for t in range(x.shape[1]):
        state = np.tanh(x[:, t] @ w_x + state @ w_h + bias)
        states.append(state)
    return np.stack(states, axis=1)


def rnn_backward(
    grad: np.ndarray, states: np.ndarray, x: np.ndarray, state: np.ndarray, w_h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dw_x, dw_h = np.zeros((x.shape[2], len(w_h))), np.zeros_like(w_h)
    dbias, da = np.zeros(len(w_h)), np.zeros_like(state)
    for t in reversed(range(x.shape[1])):
        da = (grad[:, t] + da @ w_h.T) * (1 - states[:, t] ** 2)
        previous = states[:, t - 1] if t > 0 else state
        dw_x += x[:, t].T @ da
        dw_h += previous.T @ da
        dbias += da.sum(axis=0)
    return dw_x, dw_h, dbias


def clip_by_norm(gradients: list[np.ndarray], max_norm: float) -> list[np.ndarray]:
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    scale = min(1.0, max_norm / max(norm, 1e-12))
    return [gradient * scale for gradient in gradients]


def stateful_batches(tokens: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    batches = len(tokens) // batch_size // steps
    streams = tokens[: len(tokens) // batch_size * batch_size].reshape(batch_size, -1)
    streams = streams[:, : batches * steps]
    return streams.reshape(batch_size, batches, steps).swapaxes(0, 1)
