"""Typical wrong solutions of day 14."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("lstm_step", "i, f, g, o = ", "f, i, g, o = ", "first gate is i"),
    Mistake("lstm_step", "sigmoid(i) * np.tanh(g)", "sigmoid(i) * sigmoid(g)", "through tanh"),
    Mistake("lstm_step", "sigmoid(o) * np.tanh(c), c", "sigmoid(o) * c, c", "tanh of the cell"),
    Mistake("gru_step", "(1 - z) * n + z * h", "z * n + (1 - z) * h", "z keeps the old state"),
    Mistake(
        "gru_step", "r * n_h", "(r * h) @ w_h[:, -h.shape[1] :] + b_h[-h.shape[1] :]", "not on h"
    ),
    Mistake("gru_step", "r * n_h", "n_h", "reset gate is missing"),
    Mistake(
        "last_states",
        "outputs[np.arange(len(outputs)), lengths - 1]",
        "outputs[:, -1]",
        "is padding",
    ),
    Mistake(
        "last_states",
        "np.arange(len(outputs)), lengths - 1",
        ":, lengths - 1",
        "each length for each row",
    ),
    Mistake(
        "memory_half_life",
        "math.log1p(math.exp(-forget_bias))",
        "-math.log(1 / (1 + math.exp(-forget_bias)))",
        "rounds to 1",
    ),
    Mistake("memory_half_life", "math.log(2) /", "1 /", "half is left"),
]
