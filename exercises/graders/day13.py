"""Grader of day 13."""

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def _arguments(batch=2, time=5):
    x, state = expect.normal(batch, time, 3), expect.normal(batch, 4, seed=1)
    return (
        x,
        state,
        expect.normal(3, 4, seed=2),
        expect.normal(4, 4, seed=3) / 2,
        expect.normal(4, seed=4),
    )


def _states(x, state, w_x, w_h, bias):
    rnn = torch.nn.RNN(3, 4, batch_first=True).double()
    for parameter, array in zip(rnn.parameters(), (w_x.T, w_h.T, bias, 0 * bias), strict=True):
        parameter.data.copy_(torch.tensor(array))
    return rnn(torch.from_numpy(x), torch.from_numpy(state)[None])[0], rnn


def hidden_states(rnn_forward):
    arguments = _arguments()
    x, state, w_x, w_h, bias = arguments
    right = _states(*arguments)[0].detach().numpy()
    mistakes = {
        "begin with the given state.": _states(x, 0 * state, w_x, w_h, bias)[0].detach().numpy(),
        "carry the state from step to step.": np.tanh(x @ w_x + (state @ w_h)[:, None] + bias),
        "do not transpose W_h.": _states(x, state, w_x, w_h.T, bias)[0].detach().numpy(),
        "the axes of the result are (B, T, H).": right.swapaxes(0, 1),
        "the bias is missing.": _states(x, state, w_x, w_h, 0 * bias)[0].detach().numpy(),
    }
    expect.close(expect.unchanged(rnn_forward, *arguments), right, mistakes)


def gradients_through_time(rnn_backward):
    x, state, w_x, w_h, bias = _arguments()
    grad = expect.normal(2, 5, 4, seed=6)
    states, rnn = _states(x, state, w_x, w_h, bias)
    states.backward(torch.from_numpy(grad))
    right = [
        rnn.weight_ih_l0.grad.T.numpy(),
        rnn.weight_hh_l0.grad.T.numpy(),
        rnn.bias_ih_l0.grad.numpy(),
    ]
    values = states.detach().numpy()
    local = grad * (1 - values**2)  # without the path through time
    previous = np.concatenate([state[:, None], values[:, :-1]], axis=1)
    found = expect.parts(rnn_backward(grad, values, x, state, w_h), 3)
    hint = "a state acts on the loss through the next state, too."
    expect.close(found[2], right[2], {hint: local.sum((0, 1))}, "the gradient of b")
    expect.close(
        found[0], right[0], {hint: np.einsum("bti,bth->ih", x, local)}, "the gradient of W_x"
    )
    zero = previous.copy()
    zero[:, 0] = 0
    mistakes = {
        hint: np.einsum("bti,bth->ih", previous, local),
        "W_h multiplies the previous state, not the current one.": right[1] + np.nan,
    }
    da, chain = np.zeros((2, 4)), []
    for t in reversed(range(5)):
        da = (grad[:, t] + da @ w_h.T) * (1 - values[:, t] ** 2)
        chain.insert(0, da)
    chain = np.stack(chain, 1)
    mistakes["W_h multiplies the previous state, not the current one."] = np.einsum(
        "bti,bth->ih", values, chain
    )
    mistakes["the initial state is the previous state of the first step."] = np.einsum(
        "bti,bth->ih", zero, chain
    )
    mistakes["the state before the first one is not the last one (index -1)."] = np.einsum(
        "bti,bth->ih", np.roll(values, 1, axis=1), chain
    )
    expect.close(found[1], right[1], mistakes, "the gradient of W_h")


def gradients_of_one_step(rnn_backward):
    x, state, w_x, w_h, bias = _arguments(time=1)
    states = np.tanh(x @ w_x + (state @ w_h)[:, None] + bias)
    grad = expect.normal(2, 1, 4, seed=6)
    right = expect.numerical_gradient(
        lambda w: (np.tanh(x[:, 0] @ w_x + state @ w + bias) * grad[:, 0]).sum(), w_h
    )
    found = expect.parts(rnn_backward(grad, states, x, state, w_h), 3)[1]
    hint = "the derivative of tanh(a) is 1 - h²."
    expect.close(
        found,
        right,
        {hint: state.T @ (grad[:, 0] * (1 - states[:, 0]))},
        "the gradient of W_h",
        rtol=1e-5,
    )


def clipped_gradients(clip_by_norm):
    gradients = [np.array([3.0, 0.0]), np.array([[4.0], [12.0]])]
    found = clip_by_norm(gradients, 6.5)
    expect.true(isinstance(found, list) and len(found) == 2, "expected a list of two arrays.")
    each = [g * min(1, 6.5 / np.linalg.norm(g)) for g in gradients]
    values = [np.clip(g, -6.5, 6.5) for g in gradients]
    for index in (1, 0):
        mistakes = {
            "use one norm of all gradients, so that their direction is kept.": each[index],
            "scale by the norm; do not clip each value.": values[index],
            "the norm is the root of the sum of squares.": gradients[index] * 6.5 / 169,
        }
        right = gradients[index] / 2
        expect.close(found[index], right, mistakes, f"gradient {index + 1}")


def small_gradients(clip_by_norm):
    (found,) = clip_by_norm([np.array([0.3, 0.4])], 1.0)
    expect.close(
        found, np.array([0.3, 0.4]), {"smaller gradients are unchanged.": np.array([0.6, 0.8])}
    )
    with np.errstate(all="ignore"):
        (zero,) = clip_by_norm([np.zeros(2)], 1.0)
    expect.close(zero, np.zeros(2), {"0 / 0 is nan.": np.full(2, np.nan)}, "the gradient of zeros")


def batches_of_streams(stateful_batches):
    right = np.array(
        [[[0, 1, 2], [7, 8, 9], [14, 15, 16]], [[3, 4, 5], [10, 11, 12], [17, 18, 19]]]
    )
    tokens = np.arange(23)
    mistakes = {
        "row r of batch k + 1 must continue row r of batch k.": np.arange(18).reshape(2, 3, 3),
        "the axes are (batches, batch_size, steps).": right.swapaxes(0, 1),
    }
    expect.close(stateful_batches(tokens, 3, 3), right, mistakes)
    expect.close(
        stateful_batches(np.arange(8), 2, 2),
        np.array([[[0, 1], [4, 5]], [[2, 3], [6, 7]]]),
        name="the batches of a text that fits",
    )


TASKS = [
    Task("rnn_forward", [hidden_states]),
    Task("rnn_backward", [gradients_through_time, gradients_of_one_step]),
    Task("clip_by_norm", [clipped_gradients, small_gradients]),
    Task("stateful_batches", [batches_of_streams]),
]
