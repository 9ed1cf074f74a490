"""Grader of day 48."""

import torch
from torch import nn

from exercises import expect
from exercises.grading import Task


class _Model(nn.Module):
    """Average of embeddings over earlier positions, or over those that `sees(t, s)` allows."""

    def __init__(self, sees=lambda t, s: s <= t, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.dropout, self.sees = nn.Embedding(5, 4), nn.Dropout(dropout), sees

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1])
        mask = torch.tensor(
            [[float(self.sees(int(t), int(s))) for s in positions] for t in positions]
        )
        return self.dropout(mask @ self.embedding(tokens))


TOKENS = torch.tensor([[0, 3, 1, 4, 2, 2], [1, 1, 0, 2, 3, 4]])


def causal_models(depends_on_the_future):
    expect.equal(
        depends_on_the_future(_Model(), TOKENS, 5), False, name="the result for a causal model"
    )
    expect.equal(
        depends_on_the_future(_Model(lambda t, s: s < t), TOKENS, 5),
        False,
        name="the result for a strictly causal model",
    )
    model = _Model(dropout=0.5).train()
    found = depends_on_the_future(model, TOKENS, 5)
    expect.true(
        found is False,
        "a causal model with dropout is reported.",
        "dropout differs between two calls: use net.eval().",
    )
    expect.true(model.training, "the network stays in evaluation mode.", "restore its mode.")


def leaking_models(depends_on_the_future):
    for sees, name, hint in (
        (lambda t, s: True, "without a mask", ""),
        (
            lambda t, s: s <= t + 1,
            "that sees the next token",
            "compare the outputs right before a changed token.",
        ),
        (
            lambda t, s: s <= t or (t == 2 and s == 3),
            "that leaks at one position",
            "check every position.",
        ),
        (
            lambda t, s: s <= t or (t == 0 and s == 5),
            "that leaks the last token",
            "check every position, also the last.",
        ),
    ):
        found = expect.unchanged(
            lambda tokens, sees=sees: depends_on_the_future(_Model(sees), tokens, 5), TOKENS
        )
        expect.true(found is True, f"a model {name} is not reported.", hint)


def separate_samples(mixes_samples):
    torch.manual_seed(0)
    inputs = expect.randn(3, 4, dtype=torch.float32)
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh())
    expect.equal(mixes_samples(net, inputs), False, name="the result for layer norm")
    norm = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    expect.equal(
        mixes_samples(norm.eval(), inputs),
        False,
        name="the result for batch norm in evaluation mode",
    )


def mixed_samples(mixes_samples):
    inputs = expect.randn(3, 4, dtype=torch.float32)
    norm = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    found = mixes_samples(norm.train(), inputs)
    hint = "do not change the mode of the network."
    expect.true(found is True, "batch norm in training mode is not reported.", hint)

    class Last(nn.Module):
        def forward(self, x):
            return x + torch.cat([torch.zeros_like(x[:2]), x[:1]])

    found = mixes_samples(Last(), inputs)
    expect.true(
        found is True,
        "a sample that affects only the last one is not reported.",
        "check every sample.",
    )


class _Parts(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.unused, self.dead, self.frozen = (
            nn.Linear(2, 2),
            nn.Linear(2, 2),
            nn.Linear(2, 2),
            nn.Linear(2, 2),
        )
        nn.init.constant_(self.dead.bias, -100.0)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.frozen(self.first(x)).sum() + self.dead(x).relu().sum()


def parameters_without_gradient(untrained_parameters):
    net = _Parts()
    found = untrained_parameters(net, net(expect.randn(4, 2, dtype=torch.float32)))
    right = ["unused.weight", "unused.bias", "dead.weight", "dead.bias"]
    mistakes = {
        "a gradient of zeros trains nothing, either.": right[:2],
        "a missing gradient (None) counts.": right[2:],
        "frozen parameters are left out.": [*right, "frozen.weight", "frozen.bias"],
    }
    expect.equal(found, right, mistakes, "the list of names")


def gradients_are_kept(untrained_parameters):
    net = _Parts()
    net.first.weight.grad = torch.full((2, 2), 3.0)
    untrained_parameters(net, net(expect.randn(4, 2, dtype=torch.float32)))
    changed = (
        net.first.weight.grad is None
        or not bool((net.first.weight.grad == 3.0).all())
        or net.first.bias.grad is not None
    )
    expect.true(
        not changed, "p.grad was changed.", "use torch.autograd.grad instead of backward()."
    )


def _batch():
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3)),
        expect.randn(6, 4, dtype=torch.float32),
        torch.tensor([0, 1, 2, 0, 1, 2]),
    )


def steps_of_a_good_network(steps_to_overfit):
    net, inputs, labels = _batch()
    reference, _, _ = _batch()
    optimizer = torch.optim.Adam(reference.parameters(), 0.05)
    right = 0
    while (loss := nn.functional.cross_entropy(reference(inputs), labels)).item() >= 0.01:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right += 1
    mistakes = {
        "count the steps before the loss is below the target.": right + 1,
        "the loss after the last step counts.": right - 1,
    }
    found = steps_to_overfit(net, inputs, labels, 0.05, 300)
    expect.true(
        found is not None, "the target is not reached.", "reset the gradients in each step."
    )
    expect.equal(found, right, mistakes)
    expect.equal(
        steps_to_overfit(net, inputs, labels, 0.05, 10),
        0,
        name="the result for a network that is below the target",
    )
    again, _, _ = _batch()
    expect.equal(
        steps_to_overfit(again, inputs, labels, 0.05, right),
        right,
        name="the result if max_steps are just enough",
    )


def steps_of_a_broken_network(steps_to_overfit):
    net, inputs, labels = _batch()
    found = steps_to_overfit(net, 0 * inputs, labels, 0.05, 20)  # equal inputs, different labels
    expect.true(
        found is None,
        f"the result is {found}, expected None.",
        "equal inputs with different labels cannot be learned.",
    )


TASKS = [
    Task("depends_on_the_future", [causal_models, leaking_models]),
    Task("mixes_samples", [separate_samples, mixed_samples]),
    Task("untrained_parameters", [parameters_without_gradient, gradients_are_kept]),
    Task("steps_to_overfit", [steps_of_a_good_network, steps_of_a_broken_network]),
]
