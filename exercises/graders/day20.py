"""Grader of day 20."""

import torch
import torch.nn.functional as F
from torch import nn

from exercises import expect
from exercises.grading import Task


def _net(CharacterLSTM):
    torch.manual_seed(0)
    return CharacterLSTM(7, 8, 2), torch.randint(
        7, (3, 10), generator=torch.Generator().manual_seed(1)
    )


def logits_in_pieces(CharacterLSTM):
    net, tokens = _net(CharacterLSTM)
    whole, _ = expect.parts(net(tokens), 2)
    expect.true(
        tuple(whole.shape) == (3, 10, 7),
        f"the logits have shape {tuple(whole.shape)}, expected (3, 10, 7).",
        "batch_first=True: inputs are (B, T, …).",
    )
    first, state = expect.parts(net(tokens[:, :4]), 2)
    second, _ = expect.parts(net(tokens[:, 4:], state), 2)
    mistakes = {"pass the state to the LSTM.": torch.cat([first, net(tokens[:, 4:])[0]], 1)}
    expect.close(
        torch.cat([first, second], 1),
        whole,
        mistakes,
        "the logits of a text in two pieces",
        rtol=1e-4,
        atol=1e-5,
    )


def logits_are_causal(CharacterLSTM):
    net, tokens = _net(CharacterLSTM)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 7
    expect.close(
        net(changed)[0][:, :-1],
        net(tokens)[0][:, :-1],
        name="the logits before a changed character",
        rtol=1e-5,
        atol=1e-6,
    )


def truncated_gradients(CharacterLSTM):
    net, tokens = _net(CharacterLSTM)
    for _ in range(2):
        state = None
        for piece in tokens.split(5, dim=1):
            logits, state = net(piece, state)
            attached = any(part.requires_grad for part in state)
            expect.true(
                not attached,
                "the state has a gradient.",
                "detach the state: backward() of the next batch would need the freed graph.",
            )
            F.cross_entropy(logits.flatten(0, 1), piece.flatten()).backward()


def nucleus_of_probabilities(nucleus):
    probabilities = torch.tensor(
        [[0.1, 0.5, 0.15, 0.25], [0.05, 0.05, 0.8, 0.1]], dtype=torch.float64
    )
    right = torch.tensor(
        [[0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9], [0.0, 0.0, 0.8 / 0.9, 0.1 / 0.9]],
        dtype=torch.float64,
    )
    without = torch.tensor(
        [[0.0, 0.5 / 0.75, 0.0, 0.25 / 0.75], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64
    )
    mistakes = {
        "the sum must reach top_p: keep the token that crosses it.": without,
        "normalize the kept probabilities.": right * 0.9,
        "top_p bounds the sum, not each probability.": probabilities,
    }
    expect.close(expect.unchanged(lambda p: nucleus(p, 0.85), probabilities), right, mistakes)


def limits_of_the_nucleus(nucleus):
    probabilities = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    only = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    hint = {"the most probable token is always kept.": torch.full_like(only, torch.nan)}
    expect.close(nucleus(probabilities, 0.1), only, hint, "the result for top_p = 0.1")
    expect.close(nucleus(probabilities, 1.0), probabilities, name="the result for top_p = 1")


class _Counter(nn.Module):
    """Predict the sum of all tokens so far modulo 10, without doubt; count calls."""

    def __init__(self):
        super().__init__()
        self.sizes, self.training_modes, self.gradients = [], [], []

    def forward(self, tokens, state=None):
        self.sizes.append(tokens.shape[1])
        self.training_modes.append(self.training)
        self.gradients.append(torch.is_grad_enabled())
        total = (0 if state is None else state) + tokens.cumsum(1)
        return 100.0 * F.one_hot(total % 10, 10), total[:, -1:]


def generated_tokens(generate):
    net = _Counter()
    found = generate(net, torch.tensor([1, 2, 4]), 5, torch.Generator().manual_seed(0))
    total, right = 7, []
    for _ in range(5):
        right.append(total % 10)
        total += right[-1]
    mistakes = {
        "return the new tokens only.": torch.tensor([1, 2, 4, *right]),
        "the logits of the last position predict the next token.": torch.tensor([1, 8, 6, 2, 4]),
        "pass the state of the step before.": torch.tensor([7] * 5),
        "pass only the new token: the state holds the earlier ones.": torch.tensor([7, 1, 9, 5, 7]),
    }
    expect.close(found, torch.tensor(right), mistakes)


def cost_of_generation(generate):
    net = _Counter().train()
    generate(net, torch.tensor([1, 2, 4]), 4, torch.Generator().manual_seed(0))
    hint = "pass the prompt once, then one token and the state."
    expect.true(
        net.sizes[:4] == [3, 1, 1, 1],
        f"the steps passed {net.sizes} tokens, expected [3, 1, 1, 1].",
        hint,
    )
    expect.true(not any(net.training_modes), "the network is in training mode.", "call net.eval().")
    expect.true(not any(net.gradients), "gradients are recorded.", "use torch.no_grad().")


TASKS = [
    Task("CharacterLSTM", [logits_in_pieces, logits_are_causal, truncated_gradients]),
    Task("nucleus", [nucleus_of_probabilities, limits_of_the_nucleus]),
    Task("generate", [generated_tokens, cost_of_generation]),
]
