"""Grader of day 12."""

import numpy as np
import torch
import torch.nn.functional as F

from exercises import expect
from exercises.grading import Task


def _pairs(words, window):
    size = len(words)
    return [
        (words[i], words[j]) for i in range(size) for j in range(size) if 0 < abs(i - j) <= window
    ]


def pairs_of_a_text(skip_gram_pairs):
    words = [5, 3, 8, 3, 1]
    later = [(words[i], words[j]) for i in range(5) for j in range(i + 1, min(5, i + 3))]
    mistakes = {
        "contexts are on both sides.": later,
        "the window is a distance: `window` words on each side.": _pairs(words, 1),
        "a word is no context of itself.": [
            (words[i], words[j]) for i in range(5) for j in range(5) if abs(i - j) <= 2
        ],
    }
    expect.equal(skip_gram_pairs(words, 2), _pairs(words, 2), mistakes)


def pairs_of_repeated_and_short_texts(skip_gram_pairs):
    hint = "compare positions: an equal word at another position is a context."
    expect.equal(
        skip_gram_pairs([7, 7, 2], 1), [(7, 7), (7, 7), (7, 2), (2, 7)], {hint: [(7, 2), (2, 7)]}
    )
    expect.equal(skip_gram_pairs([4], 3), [])


def _reference(center, context, negatives):
    tensors = [torch.from_numpy(x).requires_grad_() for x in (center, context, negatives)]
    loss = -F.logsigmoid(tensors[1] @ tensors[0]) - F.logsigmoid(-tensors[2] @ tensors[0]).sum()
    loss.backward()
    return loss.item(), *(tensor.grad.numpy() for tensor in tensors)


def loss_and_gradients(negative_sampling):
    arguments = expect.normal(4), expect.normal(4, seed=1), expect.normal(3, 4, seed=2)
    center, context, negatives = arguments
    right = _reference(*arguments)
    found = expect.parts(negative_sampling(*arguments), 4)
    log_sigmoid = -np.log1p(np.exp(-negatives @ center))
    first = np.log1p(np.exp(-context @ center))
    mistakes = {
        "the score of a negative has a minus sign.": first - log_sigmoid.sum(),
        "sum over the negatives.": first + np.log1p(np.exp(negatives @ center)).mean(),
        "the loss is the negative log-likelihood.": -right[0],
    }
    expect.close(found[0], right[0], mistakes, "the loss")
    only = -context / (1 + np.exp(context @ center))
    mistakes = {
        "the negatives contribute to the gradient of the center.": only,
        "the gradient has the wrong sign.": -right[1],
    }
    expect.close(found[1], right[1], mistakes, "the gradient of the center")
    expect.close(
        found[2],
        right[2],
        {"the gradient has the wrong sign.": -right[2]},
        "the gradient of the context",
    )
    summed = right[3].sum(0)
    expect.close(
        found[3],
        right[3],
        {"each negative has its own gradient.": summed},
        "the gradient of the negatives",
    )


def loss_of_large_scores(negative_sampling):
    center = np.full(4, 20.0)
    arguments = center, np.full(4, -20.0), np.full((1, 4), 20.0)
    with np.errstate(all="ignore"):
        found = expect.parts(negative_sampling(*arguments), 4)
    hint = "log σ(-1600) is -1600, not -inf: use np.logaddexp(0, x)."
    expect.close(found[0], 3200.0, {hint: np.inf}, "the loss")
    expect.close(found[1], _reference(*arguments)[1], name="the gradient of the center")


def probabilities(keep_probability):
    frequency = np.array([0.05, 1e-3, 1e-5, 1e-7])
    ratio = 1e-5 / frequency
    mistakes = {
        "a probability is at most 1.": np.sqrt(ratio),
        "this is the probability of being dropped.": 1 - np.minimum(1, np.sqrt(ratio)),
        "the root is missing.": np.minimum(1, ratio),
    }
    expect.close(keep_probability(frequency), np.minimum(1, np.sqrt(ratio)), mistakes)


def probability_of_missing_words(keep_probability):
    with np.errstate(all="raise"):
        try:
            result = keep_probability(np.array([0.0, 1.0]), 0.25)
        except FloatingPointError as error:
            raise expect.Wrong("a frequency of 0 gives a division by zero.") from error
    expect.close(result, np.array([1.0, 0.5]))


def analogies(analogy):
    generator = expect.normal(40, 8) * np.arange(1, 41)[:, None]
    unit = generator / np.linalg.norm(generator, axis=1, keepdims=True)
    for a, b, c in ((0, 1, 2), (5, 9, 30), (7, 3, 11), (20, 21, 22)):
        scores = unit @ (unit[b] - unit[a] + unit[c])
        order = [index for index in np.argsort(-scores) if index not in (a, b, c)]
        unnormalized = generator @ (generator[b] - generator[a] + generator[c])
        mistakes = {
            "exclude a, b and c: the nearest is often b or c itself.": int(np.argmax(scores)),
            "the direction is b - a + c.": int(
                next(
                    i
                    for i in np.argsort(-(unit @ (unit[a] - unit[b] + unit[c])))
                    if i not in (a, b, c)
                )
            ),
            "normalize the vectors first.": int(
                next(i for i in np.argsort(-unnormalized) if i not in (a, b, c))
            ),
        }
        right = int(order[0])
        mistakes = {hint: wrong for hint, wrong in mistakes.items() if wrong != right}
        expect.equal(analogy(generator, a, b, c), right, mistakes)


TASKS = [
    Task("skip_gram_pairs", [pairs_of_a_text, pairs_of_repeated_and_short_texts]),
    Task("negative_sampling", [loss_and_gradients, loss_of_large_scores]),
    Task("keep_probability", [probabilities, probability_of_missing_words]),
    Task("analogy", [analogies]),
]
