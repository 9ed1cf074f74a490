"""Grader of day 16."""

import numpy as np
import torch

from exercises import expect
from exercises.grading import Task


def scores_of_bahdanau(additive_scores):
    query, keys = expect.normal(2, 3), expect.normal(2, 5, 4, seed=1)
    w_q, w_k, v = expect.normal(3, 6, seed=2), expect.normal(4, 6, seed=3), expect.normal(6, seed=4)
    right = np.array(
        [[v @ np.tanh(query[b] @ w_q + keys[b, s] @ w_k) for s in range(5)] for b in range(2)]
    )
    separate = np.array(
        [
            [v @ (np.tanh(query[b] @ w_q) + np.tanh(keys[b, s] @ w_k)) for s in range(5)]
            for b in range(2)
        ]
    )
    linear = np.array(
        [[v @ (query[b] @ w_q + keys[b, s] @ w_k) for s in range(5)] for b in range(2)]
    )
    mistakes = {
        "add before tanh.": separate,
        "tanh is missing: linear scores rank all queries alike.": linear,
    }
    expect.close(additive_scores(query, keys, w_q, w_k, v), right, mistakes)


def scores_of_equal_sizes(additive_scores):
    """With B = S a broadcast over the wrong axis does not raise."""
    query, keys = expect.normal(3, 2), expect.normal(3, 3, 2, seed=1)
    w_q, w_k, v = expect.normal(2, 4, seed=2), expect.normal(2, 4, seed=3), expect.normal(4, seed=4)
    right = np.array(
        [[v @ np.tanh(query[b] @ w_q + keys[b, s] @ w_k) for s in range(3)] for b in range(3)]
    )
    hint = "each row of the batch has its own query: add an axis, (B, 1, A)."
    wrong = np.tanh(query @ w_q + keys @ w_k) @ v
    expect.close(additive_scores(query, keys, w_q, w_k, v), right, {hint: wrong})


def scores_of_luong(general_scores):
    query, keys, weight = (
        expect.normal(3, 4),
        expect.normal(3, 3, 4, seed=1),
        expect.normal(4, 4, seed=2),
    )
    right = np.array([[query[b] @ weight @ keys[b, s] for s in range(3)] for b in range(3)])
    mistakes = {
        "the order is query · W · key.": np.array(
            [[keys[b, s] @ weight @ query[b] for s in range(3)] for b in range(3)]
        ),
        "the weight is missing.": np.array(
            [[query[b] @ keys[b, s] for s in range(3)] for b in range(3)]
        ),
        "each row of the batch has its own query.": keys @ (query @ weight).T,
    }
    expect.close(general_scores(query, keys, weight), right, mistakes)
    rectangular = general_scores(expect.normal(2, 3), expect.normal(2, 5, 4), expect.normal(3, 4))
    expect.true(
        np.shape(rectangular) == (2, 5),
        f"the scores have shape {np.shape(rectangular)}, expected (2, 5).",
    )


def context_and_weights(attend):
    scores, values = expect.normal(2, 4), expect.normal(2, 4, 3, seed=1)
    mask = np.array([[True, True, False, False], [True, True, True, False]])
    tensor = torch.from_numpy(np.where(mask, scores, -np.inf)).softmax(1).numpy()
    plain = torch.from_numpy(scores).softmax(1).numpy()
    context, weights = expect.parts(attend(scores, values, mask), 2)
    mistakes = {
        "the mask is missing.": plain,
        "mask before the softmax: the weights must add up to 1.": plain * mask,
        "a masked score is -inf, not 0.": torch.from_numpy(scores * mask).softmax(1).numpy(),
        "normalize each row.": np.exp(scores) * mask / (np.exp(scores) * mask).sum(),
    }
    expect.close(weights, tensor, mistakes, "the weights")
    right = np.einsum("bs,bsd->bd", tensor, values)
    expect.close(
        context, right, {"sum over the positions, do not average.": right / 4}, "the context"
    )


def weights_of_large_scores(attend):
    scores = np.array([[1000.0, 999.0, 5000.0], [-3000.0, -3001.0, 0.0]])
    mask = np.array([[True, True, False]] * 2)
    with np.errstate(all="ignore"):
        weights = expect.parts(attend(scores, np.ones((2, 3, 1)), mask), 2)[1]
    e = np.exp(-1)
    right = np.array([[1, e, 0], [1, e, 0]]) / (1 + e)
    finite = np.isfinite(weights).all()
    hint = "subtract the maximum of the allowed scores before exp."
    expect.true(finite, "the weights have values that are inf or nan.", hint)
    expect.close(weights, right, name="the weights")


def gradient_of_softmax(softmax_backward):
    scores, grad = expect.normal(3, 5), expect.normal(3, 5, seed=1)
    tensor = torch.from_numpy(scores).requires_grad_()
    p = tensor.softmax(1)
    p.backward(torch.from_numpy(grad))
    p = p.detach().numpy()
    mistakes = {
        "only the diagonal p (1 - p): other entries act through the sum.": grad * p * (1 - p),
        "the term of the sum is missing.": grad * p,
        "the sum is weighted by p.": p * (grad - grad.sum(1, keepdims=True)),
        "the sum is over each row.": p * (grad - (grad * p).sum()),
    }
    expect.close(softmax_backward(grad, p), tensor.grad.numpy(), mistakes)


def memory_of_the_gradient(softmax_backward):
    grad, weights = expect.normal(2, 1500), np.full((2, 1500), 1 / 1500)
    hint = "do not form the Jacobian of S x S."
    expect.less_memory_than(2, lambda: softmax_backward(grad, weights), hint)


TASKS = [
    Task("additive_scores", [scores_of_bahdanau, scores_of_equal_sizes]),
    Task("general_scores", [scores_of_luong]),
    Task("attend", [context_and_weights, weights_of_large_scores]),
    Task("softmax_backward", [gradient_of_softmax, memory_of_the_gradient]),
]
