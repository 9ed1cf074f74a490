"""Grader of day 14."""

import math

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step_of_an_lstm(lstm_step):
    x, h, c = expect.normal(3, 2), expect.normal(3, 4, seed=1), expect.normal(3, 4, seed=2)
    w_x, w_h, bias = (
        expect.normal(2, 16, seed=3),
        expect.normal(4, 16, seed=4),
        expect.normal(16, seed=5),
    )
    cell = torch.nn.LSTMCell(2, 4).double()
    for parameter, array in zip(cell.parameters(), (w_x.T, w_h.T, bias, 0 * bias), strict=True):
        parameter.data.copy_(torch.tensor(array))
    right = [
        t.detach().numpy()
        for t in cell(torch.from_numpy(x), (torch.from_numpy(h), torch.from_numpy(c)))
    ]
    i, f, g, o = np.split(x @ w_x + h @ w_h + bias, 4, axis=1)
    mistakes = {
        "the gates are in the order i, f, g, o.": _sigmoid(f) * c + _sigmoid(i) * np.tanh(o),
        "the first gate is i, the second f.": _sigmoid(i) * c + _sigmoid(f) * np.tanh(g),
        "g goes through tanh, not through σ.": _sigmoid(f) * c + _sigmoid(i) * _sigmoid(g),
        "return (h, c), not (c, h).": right[0],
    }
    found = expect.parts(lstm_step(x, (h, c), w_x, w_h, bias), 2)
    expect.close(found[1], right[1], mistakes, "c")
    mistakes = {
        "h is σ(o) tanh(c): tanh of the cell is missing.": _sigmoid(o) * right[1],
        "use the new c for h.": _sigmoid(o) * np.tanh(c),
    }
    expect.close(found[0], right[0], mistakes, "h")


def closed_and_open_gates(lstm_step):
    h, c = np.zeros((1, 1)), np.array([[3.0]])
    bias = np.array([-800.0, 800.0, 0.0, 800.0])
    with np.errstate(over="raise"):
        try:
            found = expect.parts(
                lstm_step(np.zeros((1, 1)), (h, c), np.zeros((1, 4)), np.zeros((1, 4)), bias), 2
            )
        except FloatingPointError as error:
            raise expect.Wrong(
                "exp overflows for a gate of -800.", "σ(x) = (1 + tanh(x / 2)) / 2."
            ) from error
    expect.close(found[1], c, name="c with an open forget gate and a closed input gate")


def step_of_a_gru(gru_step):
    x, h = expect.normal(3, 2), expect.normal(3, 4, seed=1)
    weights = [
        expect.normal(2, 12, seed=3),
        expect.normal(4, 12, seed=4),
        expect.normal(12, seed=5),
        expect.normal(12, seed=6),
    ]
    cell = torch.nn.GRUCell(2, 4).double()
    for parameter, array in zip(cell.parameters(), weights, strict=True):
        parameter.data.copy_(torch.tensor(array.T))
    right = cell(torch.from_numpy(x), torch.from_numpy(h)).detach().numpy()
    w_x, w_h, b_x, b_h = weights
    r_x, z_x, n_x = np.split(x @ w_x + b_x, 3, axis=1)
    r_h, z_h, n_h = np.split(h @ w_h + b_h, 3, axis=1)
    r, z = _sigmoid(r_x + r_h), _sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    before = np.tanh(n_x + (r * h) @ w_h[:, 8:] + b_h[8:])
    mistakes = {
        "z keeps the old state: (1 - z) n + z h.": z * n + (1 - z) * h,
        "the reset gate acts on h W_h + b_h, not on h.": (1 - z) * before + z * h,
        "the reset gate is missing.": (1 - z) * np.tanh(n_x + n_h) + z * h,
        "the gates are in the order r, z, n.": (1 - r) * np.tanh(n_x + z * n_h) + r * h,
    }
    expect.close(gru_step(x, h, *weights), right, mistakes)


def states_of_padded_sequences(last_states):
    outputs, lengths = expect.normal(4, 5, 3), np.array([5, 1, 3, 2])
    right = np.stack([outputs[0, 4], outputs[1, 0], outputs[2, 2], outputs[3, 1]])
    mistakes = {
        "the last position is padding for shorter sequences.": outputs[:, -1],
        "a sequence of length n ends at index n - 1.": np.stack(
            [outputs[b, n % 5] for b, n in enumerate(lengths)]
        ),
        "outputs[:, lengths - 1] takes each length for each row.": outputs[:, lengths - 1],
    }
    expect.close(last_states(outputs, lengths), right, mistakes)


def half_life(memory_half_life):
    right = math.log(0.5) / math.log(1 / (1 + math.exp(-2.0)))
    mistakes = {
        "the gate is σ(b), not b.": math.log(0.5) / math.log(2.0),
        "the number of steps is positive.": -right,
        "half is left: log(1/2) / log σ(b), not 1 / log σ(b).": -1
        / math.log(1 / (1 + math.exp(-2.0))),
    }
    expect.close(memory_half_life(2.0), right, mistakes)
    expect.close(memory_half_life(0.0), 1.0, name="the result for bias 0")


def half_life_of_a_large_bias(memory_half_life):
    hint = "σ(40) rounds to 1: log σ(b) = -log1p(exp(-b))."
    try:
        found = memory_half_life(40.0)
    except ZeroDivisionError as error:
        raise expect.Wrong("division by zero for bias 40.", hint) from error
    expect.close(found, math.log(2) * math.exp(40.0), name="the result for bias 40", rtol=1e-4)


TASKS = [
    Task("lstm_step", [step_of_an_lstm, closed_and_open_gates]),
    Task("gru_step", [step_of_a_gru]),
    Task("last_states", [states_of_padded_sequences]),
    Task("memory_half_life", [half_life, half_life_of_a_large_bias]),
]
