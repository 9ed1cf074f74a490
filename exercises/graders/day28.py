"""Grader of day 28."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises import expect
from exercises.grading import Task


def ids_of_characters(CharacterTokenizer):
    tokenizer = CharacterTokenizer("hello, wörld\n")
    alphabet = sorted(set("hello, wörld\n"))
    right = [alphabet.index(c) for c in "hold"]
    seen = list(dict.fromkeys("hello, wörld\n"))
    expect.equal(
        tokenizer.encode("hold"),
        right,
        {
            "sort the characters: ids must not depend on the text's order.": [
                seen.index(c) for c in "hold"
            ]
        },
    )
    expect.equal(
        tokenizer.decode(tokenizer.encode("wörld, hello\n")),
        "wörld, hello\n",
        name="the decoded text",
    )
    expect.equal(tokenizer.encode(""), [])


def unknown_characters(CharacterTokenizer):
    tokenizer = CharacterTokenizer("abc")
    expect.raises(
        ValueError,
        lambda: tokenizer.encode("abz"),
        "for a character that the training text lacks (KeyError names no remedy)",
    )
    try:
        tokenizer.encode("abz")
    except ValueError as error:
        expect.true("z" in str(error), "the message does not contain the character.")


class _Net(nn.Module):
    """A causal network with dropout that counts its calls."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(5, 5)
        self.dropout = nn.Dropout(0.5)
        self.shapes = []

    def forward(self, tokens):
        self.shapes.append(tuple(tokens.shape))
        if tokens.shape[1] > 4:
            raise expect.Wrong(f"{tokens.shape[1]} tokens were passed, at most 4 expected.")
        steps = torch.arange(1, tokens.shape[1] + 1)[:, None]
        return self.dropout(self.embedding(tokens).cumsum(1) / steps)


def loss_of_a_text(validation_loss):
    net, tokens = _Net(), torch.tensor([0, 3, 1, 4, 2, 2, 0, 1, 3, 4])
    net.eval()
    with torch.no_grad():
        losses = [
            F.cross_entropy(net(tokens[None, s:e])[0], tokens[s + 1 : e + 1], reduction="none")
            for s, e in ((0, 4), (4, 8), (8, 9))
        ]
    full = torch.cat(losses)
    mistakes = {
        "weight windows by their tokens: the last one is shorter.": sum(x.mean() for x in losses)
        / 3,
        "the last, shorter window is missing.": torch.cat(losses[:2]).mean(),
        "divide by the number of predictions, N - 1.": full.sum() / 10,
        "the loss is a mean over tokens.": full.sum(),
    }
    expect.close(validation_loss(net, tokens, 4), full.mean().item(), mistakes, rtol=1e-4)


def mode_of_the_network(validation_loss):
    tokens = torch.tensor([0, 3, 1, 4, 2])
    net = _Net().train()
    values = {round(float(validation_loss(net, tokens, 4)), 5) for _ in range(3)}
    expect.true(
        len(values) == 1, "the loss is random.", "dropout is active: call net.eval() first."
    )
    expect.true(
        net.training,
        "the network stays in evaluation mode.",
        "restore the mode that it had before.",
    )
    net.eval()
    validation_loss(net, tokens, 4)
    expect.true(
        not net.training,
        "a network in evaluation mode is put into training mode.",
        "restore the mode that it had before.",
    )


def stopped_training(early_stopping):
    losses = [2.0, 1.5, 1.6, 1.4, 1.45, 1.41, 1.43, 1.44, 1.2]
    mistakes = {
        "`patience` epochs in a row without improvement end the training.": (8, 8),
        "an improvement restarts the count.": (5, 3),
        "stop after `patience` epochs, not one later.": (7, 3),
        "the best epoch is the last one that improved.": (6, 6),
    }
    expect.equal(early_stopping(losses, 3), (6, 3), mistakes)
    expect.equal(
        early_stopping(losses, 5),
        (8, 8),
        {"the last epoch may improve.": (8, 3)},
        "the result for patience 5",
    )


def small_improvements(early_stopping):
    mistakes = {
        "an improvement must exceed min_delta.": (4, 4),
        "compare with the best loss, not with that of the epoch before.": (2, 0),
    }
    expect.equal(
        early_stopping([1.0, 0.95, 0.9, 0.88, 0.86], 2, 0.08),
        (4, 2),
        mistakes,
        "the result for min_delta 0.08",
    )
    expect.equal(
        early_stopping([1.0, 1.0, 1.0], 2),
        (2, 0),
        {"an equal loss is no improvement.": (2, 2)},
        "the result for equal losses",
    )


TASKS = [
    Task("CharacterTokenizer", [ids_of_characters, unknown_characters]),
    Task("validation_loss", [loss_of_a_text, mode_of_the_network]),
    Task("early_stopping", [stopped_training, small_improvements]),
]
