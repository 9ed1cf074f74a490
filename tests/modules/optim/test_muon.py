"""Muon: torch.optim.Muon for hidden matrices, AdamW for all other parameters."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from modules import Classifier, LanguageModel
from modules.nets import CNN, GPT, MLP, MLPLM
from modules.optim.muon import Muon
from modules.optim.schedules import OneCycle
from tests.support.optimizers import fit

SHAPES = [(8, 4), (4, 8), (8, 4), (5, 5), (6,), (2, 3, 2), ()]


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def train(weights: list[nn.Parameter], *optimizers: torch.optim.Optimizer) -> list[Tensor]:
    """Return the weights after ten steps with random gradients."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    return [weight.detach() for weight in weights]


def test_matrices_equal_torch_muon_and_other_parameters_adamw() -> None:
    settings = {"lr": 0.01, "weight_decay": 0.3}
    weights, reference = parameters(), parameters()
    train(weights, Muon(weights, betas=(0.8, 0.9), **settings))
    muon = torch.optim.Muon(reference[:4], adjust_lr_fn="match_rms_adamw", **settings)
    train(reference, muon, AdamW(reference[4:], betas=(0.8, 0.9), fused=True, **settings))
    assert all(torch.equal(a, b) for a, b in zip(weights, reference, strict=True))


def test_training_continues_from_loaded_state() -> None:
    straight, resumed = parameters(), parameters()
    first = Muon(straight)
    train(straight, first)
    for weight, value in zip(resumed, straight, strict=True):
        weight.data.copy_(value)
    second = Muon(resumed)
    second.load_state_dict(deepcopy(first.state_dict()))
    train(straight, first)
    train(resumed, second)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_embeddings_use_adamw_and_vectors_do_not_decay() -> None:
    task = LanguageModel(
        GPT(20, 8, num_layers=2, num_heads=2, dim=8),
        optimizer=partial(Muon, lr=0.01, weight_decay=0.2),
    )
    names = {id(weight): name for name, weight in task.named_parameters()}
    groups = task.configure_optimizers()["optimizer"].param_groups
    matrices, tables, vectors = (
        ("momentum" in group, group["weight_decay"], {names[id(w)] for w in group["params"]})
        for group in groups
    )
    assert matrices[:2] == (True, 0.2)
    layers = ("attention.qkv", "attention.proj", "mlp.up", "mlp.proj")
    hidden = {f"net.blocks.{n}.{layer}.weight" for n in (0, 1) for layer in layers}
    assert matrices[2] == hidden
    assert tables == (False, 0.2, {"net.token_embedding.weight", "net.position_embedding.weight"})
    assert vectors[:2] == (False, 0.0)
    assert len(hidden) + 2 + len(vectors[2]) == len(names)


@pytest.mark.parametrize(
    ("net", "hidden"),
    [
        (MLP(image_size=8, hidden_sizes=[12, 12]), {"layers.1.weight", "layers.3.weight"}),
        (MLP(image_size=8, hidden_sizes=[]), set()),
        (CNN(image_size=8, channels=[4], hidden_size=16), {"head.1.weight"}),
        (MLPLM(20, dim=4, hidden_size=6, direct=True), {"hidden.weight"}),
        (GPT(20, 8, num_layers=1, num_heads=2, dim=8, tie_embeddings=False), None),
    ],
)
def test_output_layer_uses_adamw(net: nn.Module, hidden: set[str] | None) -> None:
    task = Classifier(net) if isinstance(net, MLP | CNN) else LanguageModel(net)
    task.optimizer = partial(Muon, lr=0.01)
    matrices = {id(w) for w in task.configure_optimizers()["optimizer"].param_groups[0]["params"]}
    names = {name for name, weight in net.named_parameters() if id(weight) in matrices}
    if hidden is None:
        layers = ("attention.qkv", "attention.proj", "mlp.up", "mlp.proj")
        hidden = {f"blocks.0.{layer}.weight" for layer in layers}
    assert names == hidden


def test_one_cycle_cycles_the_betas_of_adamw() -> None:
    watch = fit(partial(Muon, lr=0.01), OneCycle, max_epochs=1)
    matrices, vectors = watch.optimizer.param_groups[0], watch.optimizer.param_groups[-1]
    assert 0.91 < vectors["betas"][0] <= 0.95  # initially 0.9
    assert matrices["momentum"] == 0.95


def test_parameter_without_gradient_is_unchanged() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([used, unused], lr=0.1)
    used.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))
    assert unused not in optimizer.state


def test_invalid_momentum_is_an_error() -> None:
    with pytest.raises(ValueError, match="momentum must be in"):
        Muon(parameters(), momentum=1.0)
