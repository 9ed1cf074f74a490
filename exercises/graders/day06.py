"""Grader of day 6."""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from exercises import expect
from exercises.grading import Task


def _probe(x, y, ridge):
    """Solve the stacked least-squares problem with a column of ones that has no penalty."""
    n, d = x.shape
    a = np.block([[x, np.ones((n, 1))], [np.sqrt(ridge) * np.eye(d), np.zeros((d, 1))]])
    solution = np.linalg.lstsq(a, np.vstack([y, np.zeros((d, y.shape[1]))]), rcond=None)[0]
    return solution[:-1], solution[-1]


def probe_of_features(linear_probe):
    x, y = expect.normal(20, 4) + 3, np.eye(3)[np.arange(20) % 3]
    weight, bias = expect.parts(linear_probe(x, y, 2.0), 2)
    right = _probe(x, y, 2.0)
    plain = np.linalg.solve(x.T @ x + 2.0 * np.eye(4), x.T @ y)
    ones = np.hstack([x, np.ones((20, 1))])
    penalized = np.linalg.solve(ones.T @ ones + 2.0 * np.eye(5), ones.T @ y)
    mistakes = {
        "center the data: the bias is missing.": plain,
        "the bias must not be penalized.": penalized[:-1],
        "the penalty is missing.": _probe(x, y, 0.0)[0],
        "the loss is a sum, not a mean: do not multiply the penalty by N.": _probe(x, y, 40.0)[0],
    }
    expect.close(weight, right[0], mistakes, "the weight")
    hint = {"the bias is mean(y) - mean(x) W.": y.mean(0)}
    expect.close(bias, right[1], hint, "the bias")


def probe_with_few_samples(linear_probe):
    x, y = expect.normal(3, 8), np.eye(3)
    weight, _ = expect.parts(linear_probe(x, y, 0.1), 2)
    expect.close(weight, _probe(x, y, 0.1)[0], name="the weight for N < D")


def _net():
    layers = [
        ("layer1", nn.Linear(2, 2)),
        ("norm", nn.BatchNorm1d(2)),
        ("layer10", nn.Linear(2, 2)),
        ("head", nn.Linear(2, 3)),
    ]
    return nn.Sequential(OrderedDict(layers))


def _trainable(net):
    return sorted(name for name, p in net.named_parameters() if p.requires_grad)


def trainable_layers(train_only):
    net = _net()
    train_only(net, ["layer1", "head"])
    right = ["head.bias", "head.weight", "layer1.bias", "layer1.weight"]
    mistakes = {
        "'layer1' must not match 'layer10': compare with 'layer1.'.": [
            "head.bias",
            "head.weight",
            "layer1.bias",
            "layer1.weight",
            "layer10.bias",
            "layer10.weight",
        ],
        "freeze all parameters that do not match.": sorted(
            name for name, _ in net.named_parameters()
        ),
    }
    expect.equal(_trainable(net), right, mistakes, "the list of trainable parameters")


def layers_are_unfrozen_again(train_only):
    net = _net().requires_grad_(False)
    train_only(net, ["norm"])
    hint = "set requires_grad to True where a prefix matches."
    expect.equal(
        _trainable(net),
        ["norm.bias", "norm.weight"],
        {hint: []},
        "the list of trainable parameters",
    )
    expect.raises(
        ValueError, lambda: train_only(net, ["haed"]), "for a prefix that matches nothing"
    )


def mode_of_batch_norm(freeze_batch_norm):
    net = nn.Sequential(
        nn.Linear(2, 2),
        nn.BatchNorm1d(2),
        nn.Sequential(nn.BatchNorm1d(2)),
        nn.Dropout(),
        nn.BatchNorm1d(2),
    )
    net.train()
    net[:3].requires_grad_(False)
    freeze_batch_norm(net)
    modes = [net[1].training, net[2][0].training, net[3].training, net[4].training]
    mistakes = {
        "layers inside of other modules count, too: use net.modules().": [False, True, True, True],
        "a batch norm that is trained stays in training mode.": [False, False, True, False],
        "other layers, such as dropout, keep their mode.": [False, False, False, False],
        "frozen parameters do not stop running statistics: call eval().": [True] * 4,
    }
    expect.equal(
        modes,
        [False, False, True, True],
        mistakes,
        "training of norm, inner norm, dropout, trained norm",
    )


def statistics_are_kept(freeze_batch_norm):
    net = nn.Sequential(nn.BatchNorm1d(2)).requires_grad_(False).train()
    freeze_batch_norm(net)
    net(torch.full((4, 2), 9.0))
    expect.close(net[0].running_mean, torch.zeros(2), name="the running mean of a frozen layer")


def rates_of_layers(layer_groups):
    net = nn.Sequential(
        nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)
    )
    groups = layer_groups(net, 0.1, 0.5)
    rates = [float(group["lr"]) for group in groups]
    mistakes = {
        "the last layer gets the largest rate.": np.array([0.1, 0.05, 0.025]),
        "layers without parameters do not count.": np.array([0.1 / 16, 0.1 / 4, 0.1]),
        "the last layer gets lr itself.": np.array([0.0125, 0.025, 0.05]),
    }
    expect.close(np.array(rates), np.array([0.025, 0.05, 0.1]), mistakes, "the learning rates")
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    expect.equal(sizes, [9, 9, 4], name="the number of parameters of each group")


TASKS = [
    Task("linear_probe", [probe_of_features, probe_with_few_samples]),
    Task("train_only", [trainable_layers, layers_are_unfrozen_again]),
    Task("freeze_batch_norm", [mode_of_batch_norm, statistics_are_kept]),
    Task("layer_groups", [rates_of_layers]),
]
