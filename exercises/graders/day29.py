"""Grader of day 29."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from exercises import expect
from exercises.grading import Task


def _batches():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 7)).double()
    inputs = torch.randint(7, (6, 5))
    targets = torch.randint(7, (6, 5))
    targets[0, 2:] = targets[1, 1:] = -100
    return net, inputs, targets


def _gradient(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def gradient_of_a_large_batch(accumulate_gradients):
    net, inputs, targets = _batches()
    right = F.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())
    right.backward()
    gradient = _gradient(net)
    net.zero_grad()
    pieces = [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]
    losses = [F.cross_entropy(net(x).flatten(0, 1), y.flatten()) for x, y in pieces]
    sum(losses).backward()
    summed = _gradient(net)
    net.zero_grad()
    found = accumulate_gradients(net, pieces)
    mistakes = {
        "weight batches by the number of their targets: means of means differ.": summed / 2,
        "divide by the number of all targets.": summed,
        "targets of -100 do not count.": gradient * (targets != -100).sum() / 30,
        "the gradient is the sum over tokens: divide by their number.": gradient
        * (targets != -100).sum(),
    }
    expect.close(_gradient(net), gradient, mistakes, "the gradient")
    expect.close(
        found,
        right.item(),
        {"the loss is a mean over all targets.": sum(losses).item() / 2},
        "the loss",
    )


def batch_without_targets(accumulate_gradients):
    net, inputs, targets = _batches()
    pieces = [(inputs[:1], torch.full_like(targets[:1], -100)), (inputs[2:], targets[2:])]
    loss = accumulate_gradients(net, pieces)
    right = F.cross_entropy(net(inputs[2:]).flatten(0, 1), targets[2:].flatten()).item()
    expect.close(
        loss,
        right,
        {"the mean of a batch without targets is nan: use sums.": float("nan")},
        "the loss",
    )
    expect.true(torch.isfinite(_gradient(net)).all(), "the gradient has values that are nan.")


def averaged_weights(update_ema):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = copy.deepcopy(net)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net[1].running_mean.fill_(4.0)
    net[1].num_batches_tracked.fill_(7)
    before, new = average[0].weight.detach().clone(), net[0].weight.detach().clone()
    update_ema(average, net, 0.9)
    mistakes = {
        "decay is the weight of the old average.": 0.1 * before + 0.9 * new,
        "the average is not updated: work in place.": before,
    }
    expect.close(
        average[0].weight.detach(),
        0.9 * before + 0.1 * new,
        mistakes,
        "the average",
        rtol=1e-5,
        atol=1e-6,
    )
    expect.close(net[0].weight.detach(), new, name="the weight of the network")
    mistakes = {
        "copy buffers: an average of counts has no meaning.": torch.full((3,), 0.4),
        "copy buffers, too.": torch.zeros(3),
    }
    expect.close(
        average[1].running_mean, torch.full((3,), 4.0), mistakes, "the running mean", rtol=1e-5
    )


def average_has_no_gradient(update_ema):
    net = nn.Linear(2, 2)
    average = copy.deepcopy(net)
    try:
        update_ema(average, net, 0.5)
    except RuntimeError as error:
        raise expect.Wrong(f"RuntimeError: {error}", "use torch.no_grad().") from error
    leaf = average.weight.is_leaf and average.weight.grad_fn is None
    expect.true(leaf, "the average has a graph.", "use torch.no_grad().")


class _Counted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.calls, self.recorded = 0, []

    def forward(self, x):
        self.calls += 1
        self.recorded.append(torch.is_grad_enabled())
        return self.layers(x)


def gradients_of_a_checkpoint(checkpoint):
    net, x = _Counted(), expect.randn(4, 3).requires_grad_()
    net(x).square().sum().backward()
    right, inputs = _gradient(net), x.grad.clone()
    net.zero_grad()
    x.grad = None
    (checkpoint(net, x) ** 2).sum().backward()
    none = any(p.grad is None for p in net.parameters())
    expect.true(
        not none,
        "the parameters have no gradient.",
        "call backward() on the output that was computed again.",
    )
    expect.true(
        x.grad is not None, "the input has no gradient.", "return the gradient of x from backward."
    )
    wrong = {"multiply by the gradient of the output: pass it to backward().": inputs + torch.nan}
    expect.close(x.grad, inputs, wrong, "the gradient of x")
    expect.close(_gradient(net), right, name="the gradient of the parameters")


def memory_of_a_checkpoint(checkpoint):
    net, x = _Counted(), expect.randn(4, 3).requires_grad_()
    output = checkpoint(net, x)
    expect.true(
        net.calls == 1 and not net.recorded[0],
        "the forward pass records a graph.",
        "call the function under torch.no_grad().",
    )
    output.sum().backward()
    expect.true(
        net.calls == 2,
        f"the function was called {net.calls} times, expected 2.",
        "compute it again in backward.",
    )


def input_without_gradient(checkpoint):
    net = _Counted()
    output = checkpoint(net, expect.randn(4, 3))
    hint = "an autograd.Function without an input that needs a gradient has no graph: give it one."
    expect.true(output.requires_grad, "the parameters get no gradient if x needs none.", hint)


TASKS = [
    Task("accumulate_gradients", [gradient_of_a_large_batch, batch_without_targets]),
    Task("update_ema", [averaged_weights, average_has_no_gradient]),
    Task("checkpoint", [gradients_of_a_checkpoint, memory_of_a_checkpoint, input_without_gradient]),
]
