"""Grader of day 25."""

import math

import torch
from torch import nn

from exercises import expect
from exercises.grading import Task


def windows_of_a_text(random_windows):
    tokens = torch.arange(100, 130)
    inputs, targets = expect.parts(
        random_windows(tokens, 6, 8, torch.Generator().manual_seed(0)), 2
    )
    expect.true(
        tuple(inputs.shape) == (6, 8),
        f"the inputs have shape {tuple(inputs.shape)}, expected (6, 8).",
    )
    expect.close(inputs, inputs[:, :1] + torch.arange(8), name="the inputs of adjacent tokens")
    mistakes = {
        "the targets are shifted by one.": inputs,
        "shift left: the target is the next token.": inputs - 1,
    }
    expect.close(targets, inputs + 1, mistakes, "the targets")


def all_windows_are_possible(random_windows):
    tokens = torch.arange(6)
    generator = torch.Generator().manual_seed(0)
    try:
        starts = {
            int(start)
            for _ in range(40)
            for start in random_windows(tokens, 8, 3, generator)[0][:, 0]
        }
    except (IndexError, RuntimeError) as error:
        raise expect.Wrong(
            f"{type(error).__name__} for a window at the end.",
            "the last target must be in the text, too.",
        ) from error
    mistakes = {
        "the window at the end of the text is missing.": [0, 1],
        "begin at random positions, not at multiples of the context.": [0],
    }
    expect.equal(
        sorted(starts),
        [0, 1, 2],
        mistakes,
        "the list of positions in 320 windows of 3 from 6 tokens",
    )


def rates(warmup_cosine):
    steps = [0, 4, 9, 10, 35, 60, 110]
    found = [float(warmup_cosine(step, 10, 110, 1.0, 0.1)) for step in steps]

    def cosine(p):
        return 0.1 + 0.9 * (1 + math.cos(math.pi * p)) / 2

    right = [0.1, 0.5, 1.0, 1.0, cosine(0.25), cosine(0.5), 0.1]
    late = [0.1, 0.5, 1.0, cosine(10 / 110), cosine(35 / 110), cosine(60 / 110), 0.1]
    zero = [0.1, 0.5, 1.0, 1.0, *((1 + math.cos(math.pi * p)) / 2 for p in (0.25, 0.5, 1))]
    shifted = [0.0, 0.4, 0.9, *right[3:]]
    mistakes = {
        "p is 0 at the end of the warm-up.": late,
        "the cosine ends at min_lr.": zero,
        "the first step has the rate max_lr / warmup, not 0.": shifted,
    }
    pairs = [(hint, torch.tensor(wrong)) for hint, wrong in mistakes.items()]
    expect.close(torch.tensor(found), torch.tensor(right), pairs, f"the rate at the steps {steps}")


def rate_after_the_end(warmup_cosine):
    found = warmup_cosine(150, 10, 110, 1.0, 0.1)
    again = 0.1 + 0.9 * (1 + math.cos(math.pi * 1.4)) / 2
    expect.close(
        found,
        0.1,
        {"after total_steps the rate stays at min_lr: the cosine would rise again.": again},
    )
    expect.close(warmup_cosine(0, 0, 10, 1.0, 0.0), 1.0, name="the first rate without warm-up")


def groups_of_parameters(decay_groups):
    net = nn.Sequential(
        nn.Embedding(10, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 10, bias=False)
    )
    net[3].weight = net[0].weight
    groups = decay_groups(net, 0.1)
    sizes = [sorted(p.numel() for p in group["params"]) for group in groups]
    mistakes = {
        "norms and biases do not decay.": [[4, 4, 4, 16, 40], []],
        "norms and biases do not decay: ndim >= 2.": [[4, 4, 4, 16, 40], [4, 4, 4]],
        "a tied weight is one parameter.": [[16, 40, 40], [4, 4, 4]],
        "the matrices are the first group.": [[4, 4, 4], [16, 40]],
        "embeddings are matrices.": [[16], [4, 4, 4, 40]],
    }
    expect.equal(sizes, [[16, 40], [4, 4, 4]], mistakes, "the list of sizes by group")
    expect.equal(
        [float(group["weight_decay"]) for group in groups],
        [0.1, 0.0],
        name="the list of weight decays",
    )


def frozen_parameters(decay_groups):
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net[0].requires_grad_(False)
    sizes = [[p.numel() for p in group["params"]] for group in decay_groups(net, 0.1)]
    expect.equal(
        sizes,
        [[3], [1]],
        {"leave out frozen parameters.": [[6, 3], [3, 1]]},
        "the list of sizes by group",
    )


def operations(training_flops):
    parameters, layers, width, context, tokens = 124_000_000, 12, 768, 1024, 10**9
    weights, products = 6 * parameters, 12 * layers * width * context
    mistakes = {
        "the term of attention is missing.": weights * tokens,
        "a multiply-add is two operations, and backward costs twice the forward pass.": (
            2 * parameters + products
        )
        * tokens,
        "this is the cost of one token.": weights + products,
        "the products cost 12 · layers · width · context per token.": (weights + products * context)
        * tokens,
    }
    expect.equal(
        training_flops(parameters, layers, width, context, tokens),
        (weights + products) * tokens,
        mistakes,
    )


TASKS = [
    Task("random_windows", [windows_of_a_text, all_windows_are_possible]),
    Task("warmup_cosine", [rates, rate_after_the_end]),
    Task("decay_groups", [groups_of_parameters, frozen_parameters]),
    Task("training_flops", [operations]),
]
