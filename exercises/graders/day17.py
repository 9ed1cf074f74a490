"""Grader of day 17."""

import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def attention_of_one_head(self_attention):
    x, weights = expect.randn(2, 5, 6), [expect.randn(6, 4, seed=seed) for seed in (1, 2, 3)]
    q, k, v = (x @ w for w in weights)
    right = F.scaled_dot_product_attention(q, k, v)
    mistakes = {
        "divide the scores by √D.": F.scaled_dot_product_attention(q, k, v, scale=1.0),
        "D is the width of the keys, not of the inputs.": F.scaled_dot_product_attention(
            q, k, v, scale=6**-0.5
        ),
        "the softmax is over the keys, the last axis.": (q @ k.mT / 2).softmax(1) @ v,
        "queries and keys are exchanged.": F.scaled_dot_product_attention(k, q, v),
        "multiply the weights by the values.": F.scaled_dot_product_attention(q, k, k),
    }
    expect.close(self_attention(x, *weights), right, mistakes)


def attention_without_order(self_attention):
    """Self-attention is equivariant under permutations: without positions it has no order."""
    x, weights = expect.randn(1, 6, 3), [expect.randn(3, 3, seed=seed) for seed in (1, 2, 3)]
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expect.close(
        self_attention(x[:, order], *weights),
        self_attention(x, *weights)[:, order],
        name="the result for permuted positions",
    )


def heads_of_queries(split_heads):
    x = torch.arange(2.0 * 3 * 8).reshape(2, 3, 8)
    right = torch.stack([x[:, :, :4], x[:, :, 4:]], dim=1)
    mistakes = {
        "reshape to (B, T, H, D/H) first, then transpose.": x.reshape(2, 2, 3, 4),
        "head h has adjacent columns.": torch.stack([x[:, :, 0::2], x[:, :, 1::2]], dim=1),
        "the heads are axis 1.": right.transpose(1, 2),
    }
    expect.close(split_heads(x, 2), right, mistakes)


def heads_that_do_not_divide(split_heads):
    expect.raises(
        ValueError,
        lambda: split_heads(torch.zeros(1, 2, 6), 4),
        "if 4 heads have to divide the width 6",
    )


def costs_of_attention(attention_costs):
    length, width = 128, 64
    right = (4 * length * width**2, 2 * length**2 * width, 8 * length**2)
    mistakes = {
        "Q Kᵀ and weights · V are two products.": (right[0], right[1] // 2, right[2]),
        "the heads divide the width: H heads of D/H cost as much as one of D.": (
            right[0],
            right[1] * 8,
            right[2],
        ),
        "the output projection is missing.": (right[0] * 3 // 4, right[1], right[2]),
        "each head has its own scores.": (right[0], right[1], length**2),
    }
    expect.equal(attention_costs(length, width, 8), right, mistakes)


def learning_rates(noam_learning_rate):
    right = 512**-0.5 * 100 * 4000**-1.5
    expect.close(
        noam_learning_rate(100, 512, 4000),
        right,
        {"take the minimum.": 512**-0.5 * 0.1},
        "the rate at step 100",
    )
    mistakes = {
        "after the warm-up the rate falls with 1/√step.": 512**-0.5 * 16000 * 4000**-1.5,
        "the factor width^-0.5 is missing.": 16000**-0.5,
    }
    expect.close(
        noam_learning_rate(16000, 512, 4000),
        512**-0.5 * 16000**-0.5,
        mistakes,
        "the rate at step 16000",
    )


def first_learning_rate(noam_learning_rate):
    try:
        found = noam_learning_rate(0, 64, 10)
    except ZeroDivisionError as error:
        raise expect.Wrong("division by zero at step 0.", "step 0 counts as step 1.") from error
    expect.close(
        found, 64**-0.5 * 10**-1.5, {"step 0 counts as step 1.": 0.0}, "the rate at step 0"
    )


TASKS = [
    Task("self_attention", [attention_of_one_head, attention_without_order]),
    Task("split_heads", [heads_of_queries, heads_that_do_not_divide]),
    Task("attention_costs", [costs_of_attention]),
    Task("noam_learning_rate", [learning_rates, first_learning_rate]),
]
