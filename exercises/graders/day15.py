"""Grader of day 15."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task

EOS = 0


def loss_without_padding(sequence_loss):
    logits, targets = expect.randn(2, 4, 5), torch.tensor([[3, 4, 1, 2], [2, 1, 0, 0]])
    losses = F.cross_entropy(logits.mT, targets, reduction="none")
    words = targets != 0
    rows = (losses * words).sum(1) / words.sum(1)
    mistakes = {
        "padding does not count.": losses.mean(),
        "divide by the number of words, not of positions.": (losses * words).mean(),
        "average over all words of the batch, not over sentences.": rows.mean(),
        "take the mean over words.": (losses * words).sum(),
    }
    expect.close(sequence_loss(logits, targets, 0), (losses * words).sum() / words.sum(), mistakes)


def loss_with_another_padding(sequence_loss):
    logits, targets = expect.randn(1, 3, 5).requires_grad_(), torch.tensor([[0, 4, 3]])
    loss = sequence_loss(logits, targets, 3)
    expect.close(
        loss,
        F.cross_entropy(logits[0, :2], targets[0, :2]),
        {"use the argument `pad`, not 0.": F.cross_entropy(logits[0, 1:], targets[0, 1:])},
    )
    loss.backward()
    expect.true(bool((logits.grad[0, 2] == 0).all()), "the padded position has a gradient.")


def _model(vocab, length, seed):
    """Return log-probabilities for all prefixes, made of random numbers."""
    table = {}
    for size in range(length + 1):
        for prefix in itertools.product(range(vocab), repeat=size):
            scores = 2 * expect.normal(vocab, seed=seed + 7 * len(table))
            table[prefix] = list(scores - np.log(np.exp(scores).sum()))
    return lambda tokens: list(table[tuple(tokens)])


def _all_sequences(model, vocab, length, alpha):
    """Score every finished sequence, and every open one of full length."""
    scored = []
    for size in range(length + 1):
        for tokens in itertools.product(range(1, vocab), repeat=size):
            sequence = [*tokens, EOS] if size < length else [*tokens]
            total = sum(model(sequence[:i])[token] for i, token in enumerate(sequence))
            scored.append((total / len(sequence) ** alpha, list(tokens)))
    return max(scored)[1]


def greedy_sequence(greedy_decode):
    def model(tokens):
        return [[-2.0, -0.5, -1.5], [-1.0, -3.0, -0.6], [-0.1, -4.0, -3.0]][len(tokens)]

    mistakes = {"eos is not part of the result.": [1, 2, 0], "take the most probable token.": [0]}
    expect.equal(greedy_decode(model, EOS, 5), [1, 2], mistakes)


def greedy_limits(greedy_decode):
    hint = {"stop after max_length tokens.": [1, 1, 1, 1], "max_length tokens are allowed.": [1, 1]}
    expect.equal(
        greedy_decode(lambda tokens: [-5.0, -0.1] if len(tokens) < 9 else [0.0, -9.0], EOS, 3),
        [1, 1, 1],
        hint,
    )
    expect.equal(greedy_decode(lambda tokens: [-0.1, -5.0], EOS, 3), [])


def beam_of_all_sequences(beam_search):
    for seed in range(3):
        model = _model(3, 4, 1000 * seed)
        expect.equal(
            beam_search(model, EOS, 4, 100),
            _all_sequences(model, 3, 4, 0.0),
            name="the result of a beam that holds everything",
        )


def beam_of_one_is_greedy(beam_search):
    for seed in range(4):
        model = _model(3, 4, 1000 * seed)
        tokens = []
        while len(tokens) < 4 and (best := int(np.argmax(model(tokens)))) != EOS:
            tokens.append(best)
        expect.equal(beam_search(model, EOS, 4, 1), tokens, name="the result of a beam of 1")


def beam_finds_more_than_greedy(beam_search):
    # token 1 is the better first step, but leads to two improbable ones
    table = {(): [-9.0, -0.6, -0.8], (1,): [-1.1, -1.2, -1.3], (2,): [-0.1, -3.0, -3.0]}

    def model(tokens):
        return table.get(tuple(tokens), [-0.1, -3.0, -3.0])

    hint = {"keep the best extensions of all hypotheses, not of one.": [1]}
    expect.equal(beam_search(model, EOS, 4, 2), [2], hint)


def length_penalty(beam_search):
    for seed in range(3):
        model = _model(3, 4, 1000 * seed + 50)
        right, plain = _all_sequences(model, 3, 4, 1.0), _all_sequences(model, 3, 4, 0.0)
        hint = {"divide the log-probability by length^alpha.": plain} if plain != right else {}
        expect.equal(beam_search(model, EOS, 4, 100, 1.0), right, hint, "the result for alpha = 1")
    half = math.log(0.5)

    def coin(tokens):
        return [half, half] if len(tokens) < 2 else [0.0, -99.0]

    hint = {"the length counts eos, too.": []}
    expect.equal(beam_search(coin, EOS, 3, 8, 1.0), [1, 1], hint, "the result for a coin")


TASKS = [
    Task("sequence_loss", [loss_without_padding, loss_with_another_padding]),
    Task("greedy_decode", [greedy_sequence, greedy_limits]),
    Task(
        "beam_search",
        [beam_of_all_sequences, beam_of_one_is_greedy, beam_finds_more_than_greedy, length_penalty],
    ),
]
