"""Grader of day 26."""

import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def pairs(encode_pair):
    tokens, segments = expect.parts(encode_pair([7, 8], [9], 1, 2, 20), 2)
    expect.equal(
        tokens, [1, 7, 8, 2, 9, 2], {"the second [SEP] is missing.": [1, 7, 8, 2, 9]}, "the tokens"
    )
    mistakes = {
        "the first [SEP] belongs to segment 0.": [0, 0, 0, 1, 1, 1],
        "the last [SEP] belongs to segment 1.": [0, 0, 0, 0, 1, 0],
        "there is a segment for each token.": [0, 0, 1],
    }
    expect.equal(segments, [0, 0, 0, 0, 1, 1], mistakes, "the segments")


def truncated_pairs(encode_pair):
    tokens, segments = expect.parts(encode_pair([11, 12, 13, 14, 15], [21, 22], 1, 2, 8), 2)
    mistakes = {
        "shorten the longer sentence.": [1, 11, 12, 13, 14, 15, 2, 2],
        "cut the sentences, not the result: [SEP] must stay.": [1, 11, 12, 13, 14, 15, 2, 21],
        "remove tokens from the end.": [1, 13, 14, 15, 2, 21, 22, 2],
    }
    expect.equal(tokens, [1, 11, 12, 13, 2, 21, 22, 2], mistakes, "the tokens")
    expect.equal(segments, [0] * 5 + [1] * 3, name="the segments")
    tokens = expect.parts(encode_pair([11, 12], [21, 22], 1, 2, 6), 2)[0]
    expect.equal(
        tokens,
        [1, 11, 12, 2, 21, 2],
        {"of equally long sentences shorten the second.": [1, 11, 2, 21, 22, 2]},
        "the tokens",
    )


def _masked(mask_tokens, vocab=1000):
    tokens = torch.randint(10, vocab, (100, 200), generator=torch.Generator().manual_seed(1))
    special = torch.zeros_like(tokens, dtype=torch.bool)
    special[:, 0] = special[:, 150:] = True
    inputs, targets = expect.parts(
        expect.unchanged(
            lambda t, s: mask_tokens(t, s, 5, vocab, torch.Generator().manual_seed(2)),
            tokens,
            special,
        ),
        2,
    )
    return tokens, special, inputs, targets


def chosen_tokens(mask_tokens):
    tokens, special, _, targets = _masked(mask_tokens)
    chosen = targets != -100
    expect.true(
        not (chosen & special).any(),
        "special tokens are chosen.",
        "padding and [SEP] are not predicted.",
    )
    share = (chosen.sum() / (~special).sum()).item()
    hint = (
        "targets are -100 where nothing was chosen."
        if share > 0.9
        else "draw one number per token."
    )
    expect.true(
        abs(share - 0.15) < 0.01, f"{share:.1%} of the tokens are chosen, expected 15%.", hint
    )
    expect.close(
        targets[chosen],
        tokens[chosen],
        {"targets are the original tokens.": _masked(mask_tokens)[2][chosen]},
        "the targets",
    )


def kinds_of_chosen_tokens(mask_tokens):
    tokens, _, inputs, targets = _masked(mask_tokens)
    chosen = targets != -100
    expect.close(inputs[~chosen], tokens[~chosen], name="the inputs that are not chosen")
    masked = (inputs[chosen] == 5).float().mean().item()
    same = (inputs[chosen] == tokens[chosen]).float().mean().item()
    hint = ""
    if masked > 0.88:
        hint = "only 80 % of the chosen tokens become [MASK]."
    elif same < 0.03:
        hint = "10 % of the chosen tokens stay."
    elif same > 0.17:
        hint = "10 % of the chosen tokens become random tokens."
    right = abs(masked - 0.8) < 0.03 and abs(same - 0.1) < 0.03
    expect.true(
        right, f"{masked:.0%} are [MASK] and {same:.0%} unchanged, expected 80% and 10%.", hint
    )
    others = inputs[chosen & (inputs != 5) & (inputs != tokens)]
    spread = others.unique().numel() > 100 and int(others.max()) > 900
    expect.true(
        spread,
        "the random tokens are not from the whole vocabulary.",
        "draw one random token per position.",
    )


def _loss(hidden, weight, bias, targets):
    return F.cross_entropy((hidden @ weight.T + bias).flatten(0, 1), targets.flatten())


def _arguments():
    targets = torch.full((3, 6), -100)
    targets[0, 1], targets[0, 2], targets[2, 5] = 4, 0, 7
    return expect.randn(3, 6, 4), expect.randn(9, 4, seed=1), expect.randn(9, seed=2), targets


def loss_of_chosen_positions(masked_loss):
    arguments = _arguments()
    right = _loss(*arguments)
    mistakes = {
        "divide by the number of chosen positions.": right * 3 / 18,
        "take the mean.": right * 3,
        "the bias is missing.": _loss(arguments[0], arguments[1], 0 * arguments[2], arguments[3]),
    }
    expect.close(masked_loss(*arguments), right, mistakes)


def loss_without_chosen_positions(masked_loss):
    hidden, weight, bias, targets = _arguments()
    hidden.requires_grad_()
    loss = masked_loss(hidden, weight, bias, torch.full_like(targets, -100))
    zero = torch.zeros((), dtype=torch.float64)
    expect.close(loss, zero, {"the mean of nothing is nan.": zero + torch.nan})


def gradient_of_the_loss(masked_loss):
    gradients = []
    for function in (masked_loss, _loss):
        tensors = _arguments()
        leaves = [tensor.requires_grad_() for tensor in tensors[:3]]
        function(*tensors).backward()
        gradients.append(leaves[0].grad)
    expect.close(gradients[0], gradients[1], name="the gradient of hidden")


TASKS = [
    Task("encode_pair", [pairs, truncated_pairs]),
    Task("mask_tokens", [chosen_tokens, kinds_of_chosen_tokens]),
    Task(
        "masked_loss",
        [loss_of_chosen_positions, loss_without_chosen_positions, gradient_of_the_loss],
    ),
]
