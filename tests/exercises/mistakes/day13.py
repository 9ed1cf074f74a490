"""Typical wrong solutions of day 13."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("rnn_forward", "state @ w_h", "state @ w_h.T", "do not transpose"),
    Mistake("rnn_forward", "np.stack(states, axis=1)", "np.stack(states)", "(B, T, H)"),
    Mistake(
        "rnn_forward",
        "    state = np.tanh(x[:, t] @ w_x + state @ w_h + bias)\n        states.append(state)",
        "    states.append(np.tanh(x[:, t] @ w_x + state @ w_h + bias))",
        "from step to step",
    ),
    Mistake("rnn_backward", "(grad[:, t] + da @ w_h.T)", "grad[:, t]", "through the next state"),
    Mistake("rnn_backward", "previous.T @ da", "states[:, t].T @ da", "not the current one"),
    Mistake("rnn_backward", "states[:, t - 1] if t > 0 else state", "states[:, t - 1]", "index -1"),
    Mistake("rnn_backward", "states[:, t] ** 2", "states[:, t]", "1 - h²"),
    Mistake(
        "clip_by_norm",
        "min(1.0, max_norm / max(norm, 1e-12))",
        "max_norm / max(norm, 1e-12)",
        "smaller gradients are unchanged",
    ),
    Mistake(
        "clip_by_norm",
        "[gradient * scale for gradient in gradients]",
        "[np.clip(gradient, -max_norm, max_norm) for gradient in gradients]",
        "do not clip each value",
    ),
    Mistake(
        "stateful_batches",
        "streams.reshape(batch_size, batches, steps).swapaxes(0, 1)",
        "tokens[: batches * batch_size * steps].reshape(batches, batch_size, steps)",
        "must continue row",
    ),
    Mistake("stateful_batches", ".swapaxes(0, 1)", "", "(batches, batch_size, steps)"),
]
