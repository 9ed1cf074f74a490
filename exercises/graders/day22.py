"""Grader of day 22."""

import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def square_mask(causal_mask):
    right = torch.tensor([[i >= j for j in range(4)] for i in range(4)])
    mistakes = {
        "a position attends to itself.": right & ~torch.eye(4, dtype=torch.bool),
        "earlier positions are allowed, later ones are not.": right.T,
        "True means that attention is allowed.": ~right,
    }
    result = causal_mask(4, 4)
    expect.close(result, right, mistakes)
    expect.true(result.dtype == torch.bool, f"the mask has dtype {result.dtype}, expected bool.")


def mask_with_a_cache(causal_mask):
    right = torch.tensor([[True, True, True, True, False], [True] * 5])
    first = torch.ones(2, 5, dtype=torch.bool).tril()
    hint = "the queries are the last positions: shift the diagonal by keys - queries."
    expect.close(causal_mask(2, 5), right, {hint: first})
    expect.close(
        causal_mask(1, 7), torch.ones(1, 7, dtype=torch.bool), {hint: torch.arange(7)[None] < 1}
    )


def _tensors():
    return (
        expect.randn(2, 3, 4, 8),
        expect.randn(2, 3, 5, 8, seed=1),
        expect.randn(2, 3, 5, 6, seed=2),
    )


def attention_without_mask(attention):
    q, k, v = _tensors()
    scores = q @ k.mT
    mistakes = {
        "divide the scores by √D.": scores.softmax(-1) @ v,
        "divide by √D, not by D.": (scores / 8).softmax(-1) @ v,
        "the softmax is over the keys, the last axis.": (scores / 8**0.5).softmax(-2) @ v,
        "D is the width of a head, the last axis.": (scores / 4**0.5).softmax(-1) @ v,
    }
    expect.close(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), mistakes)


def attention_with_mask(attention):
    q, k, v = _tensors()
    mask = torch.ones(4, 5).tril(1).bool()
    weights = (q @ k.mT / 8**0.5).softmax(-1)
    mistakes = {
        "mask the scores before the softmax: the weights must add up to 1.": (weights * mask) @ v,
        "True means that attention is allowed.": F.scaled_dot_product_attention(q, k, v, ~mask),
        "a masked score is -inf, not 0.": ((q @ k.mT / 8**0.5) * mask).softmax(-1) @ v,
    }
    expect.close(attention(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask), mistakes)


def query_without_keys(attention):
    q, k, v = (tensor.requires_grad_() for tensor in _tensors())
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2] = False
    result = attention(q, k, v, mask)
    average = v.mean(-2).detach()
    hint = {
        "the softmax of -inf only is nan: treat such rows apart.": torch.full_like(
            average, torch.nan
        ),
        "the row still attends to keys: multiply its weights by 0.": (
            F.scaled_dot_product_attention(q, k, v)[..., 2, :].detach()
        ),
        "a large negative number instead of -inf averages all values: set the row to 0.": average,
    }
    expect.close(result[..., 2, :], torch.zeros(2, 3, 6, dtype=v.dtype), hint)
    result.sum().backward()
    finite = torch.isfinite(q.grad).all() and torch.isfinite(k.grad).all()
    hint = "torch.where or nan_to_num after the softmax leaves nan in its backward pass."
    expect.true(finite, "the gradients have values that are nan.", hint)


def _cross(x, memory, weights, heads):
    width = x.shape[-1]
    projections = torch.cat([w.T for w in weights[:3]])
    return F.multi_head_attention_forward(
        x.transpose(0, 1), memory.transpose(0, 1), memory.transpose(0, 1), width, heads, projections,
        None, None, None, False, 0.0, weights[3].T, None, need_weights=False,
    )[0].transpose(0, 1)  # fmt: skip


def _cross_inputs():
    weights = tuple(expect.randn(8, 8, seed=seed) / 8**0.5 for seed in range(4))
    return expect.randn(2, 3, 8, seed=5), expect.randn(2, 6, 8, seed=6), weights


def multi_head_cross_attention(cross_attention):
    x, memory, weights = _cross_inputs()
    right = _cross(x, memory, weights, 2)
    q, k, v = x @ weights[0], memory @ weights[1], memory @ weights[2]
    pieces = [y.unflatten(-1, (4, 2)).movedim(-1, 1) for y in (q, k, v)]  # columns h, h + H, …
    interleaved = F.scaled_dot_product_attention(*pieces).movedim(1, -1).flatten(2) @ weights[3]
    mistakes = {
        "split the width into heads.": _cross(x, memory, weights, 1),
        "the output weight W_o is missing.": right @ torch.linalg.inv(weights[3]),
        "head h uses adjacent columns: reshape to (H, D/H), not to (D/H, H).": interleaved,
    }
    expect.close(cross_attention(x, memory, weights, 2), right, mistakes)


def cross_attention_ignores_the_order_of_memory(cross_attention):
    x, memory, weights = _cross_inputs()
    results = [cross_attention(x, y, weights, 4) for y in (memory, memory.flip(1))]
    hint = "heads must be split by reshape and transpose, not by a reshape to (B, H, T, D/H) alone."
    same = results[0].shape == x.shape and torch.allclose(*results)
    expect.true(same, "the result depends on the order of the encoder's outputs.", hint)
    expect.close(results[0], _cross(x, memory, weights, 4))


def shifted_inputs(teacher_forcing):
    targets = torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0]])
    inputs, counted = expect.parts(teacher_forcing(targets, 1, 0), 2)
    right = torch.tensor([[1, 5, 6, 7], [1, 8, 2, 0]])
    mistakes = {
        "the target itself is among the inputs: shift by one.": targets,
        "shift right, not left.": torch.tensor([[6, 7, 2, 1], [2, 0, 0, 1]]),
    }
    expect.close(inputs, right, mistakes, "the inputs")
    mistakes = {"the mask belongs to the targets, not to the inputs.": right != 0}
    expect.close(counted, targets != 0, mistakes, "the mask")


TASKS = [
    Task("causal_mask", [square_mask, mask_with_a_cache]),
    Task("attention", [attention_without_mask, attention_with_mask, query_without_keys]),
    Task(
        "cross_attention", [multi_head_cross_attention, cross_attention_ignores_the_order_of_memory]
    ),
    Task("teacher_forcing", [shifted_inputs]),
]
