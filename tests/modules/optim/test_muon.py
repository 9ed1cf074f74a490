"""Muon: torch's own numbers for matrices, AdamW's for all else, on one device or many."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

import modules.optim.muon
from modules import Classifier, LanguageModel
from modules.nets import CNN, GPT, MLP, MLPLM
from modules.optim.muon import Muon, orthogonal
from modules.optim.schedules import OneCycle
from tests.support.optimizers import fit

SHAPES = [(8, 4), (4, 8), (8, 4), (5, 5), (6,), (2, 3, 2), ()]


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def train(weights: list[nn.Parameter], *optimizers: torch.optim.Optimizer) -> list[Tensor]:
    """The weights after fifty steps along gradients that point mostly one way."""
    draw = torch.Generator().manual_seed(1)
    usual = [torch.randn(w.shape, generator=draw) for w in weights]
    for _ in range(50):
        for weight, gradient in zip(weights, usual, strict=True):
            weight.grad = gradient + 0.3 * torch.randn(weight.shape, generator=draw)
        for optimizer in optimizers:
            optimizer.step()
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("fast", [True, False], ids=["bfloat16", "float32"])
def test_matrices_go_as_with_torch_and_all_else_as_with_adamw(fast: bool, monkeypatch) -> None:
    monkeypatch.setattr(modules.optim.muon, "has_native_bfloat16", lambda device: fast)
    settings = {"lr": 0.01, "weight_decay": 0.3}
    start, ours = [w.detach().clone() for w in parameters()], parameters()
    train(ours, Muon(ours, betas=(0.8, 0.9), **settings))
    theirs = parameters()
    of_matrices = torch.optim.Muon(theirs[:4], adjust_lr_fn="match_rms_adamw", **settings)
    train(theirs, of_matrices, AdamW(theirs[4:], betas=(0.8, 0.9), fused=True, **settings))
    for old, a, b in zip(start[:4], ours, theirs, strict=False):
        # Both round to bfloat16, in another order, where 3.4 - 4.8 + 2.0 is to be 0.7.
        assert (a - b).norm() < 0.05 * (b - old).norm()
        assert (b - old).abs().max() > 0.1
    assert all(torch.equal(a, b) for a, b in zip(ours[4:], theirs[4:], strict=True))


def test_steps_have_the_directions_of_the_momentum_and_one_length() -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(3, 16, 40), full_matrices=False)
    sizes = torch.logspace(0, -2, 16)
    made = orthogonal(left * sizes @ right)  # (3, 16, 40)
    lengths = left.mT @ made @ right.mT  # diagonal where the directions stay
    found = lengths.diagonal(dim1=-2, dim2=-1)
    assert found.min() > 0.6
    assert found.max() < 1.3
    assert (lengths - found.diag_embed()).abs().max() < 0.1
    assert torch.equal(orthogonal(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def test_tables_gains_and_biases_are_those_of_adamw_and_vectors_do_not_decay() -> None:
    task = LanguageModel(
        GPT(20, 8, num_layers=2, num_heads=2, dim=8),
        optimizer=partial(Muon, lr=0.01, weight_decay=0.2),
    )
    names = {id(weight): name for name, weight in task.named_parameters()}
    groups = task.configure_optimizers()["optimizer"].param_groups
    told = [
        ("momentum" in group, group["weight_decay"], {names[id(w)] for w in group["params"]})
        for group in groups
    ]
    matrices, tables, vectors = told
    assert matrices[:2] == (True, 0.2)
    layers = ("attention.qkv", "attention.proj", "mlp.up", "mlp.proj")
    inner = {f"net.blocks.{n}.{layer}.weight" for n in (0, 1) for layer in layers}
    assert matrices[2] == inner
    assert tables == (False, 0.2, {"net.token_embedding.weight", "net.position_embedding.weight"})
    assert vectors[:2] == (False, 0.0)
    assert len(inner) + 2 + len(vectors[2]) == len(names)


@pytest.mark.parametrize(
    ("net", "inner"),
    [
        (MLP(image_size=8, hidden_sizes=[12, 12]), {"layers.1.weight", "layers.3.weight"}),
        (MLP(image_size=8, hidden_sizes=[]), set()),
        (CNN(image_size=8, channels=[4], hidden_size=16), {"head.1.weight"}),
        (MLPLM(20, dim=4, hidden_size=6, direct=True), {"hidden.weight"}),
        (GPT(20, 8, num_layers=1, num_heads=2, dim=8, tie_embeddings=False), None),
    ],
)
def test_what_makes_the_logits_is_adamws(net: nn.Module, inner: set[str] | None) -> None:
    task = Classifier(net) if isinstance(net, MLP | CNN) else LanguageModel(net)
    task.optimizer = partial(Muon, lr=0.01)
    matrices = {id(w) for w in task.configure_optimizers()["optimizer"].param_groups[0]["params"]}
    found = {name for name, weight in net.named_parameters() if id(weight) in matrices}
    if inner is None:
        layers = ("attention.qkv", "attention.proj", "mlp.up", "mlp.proj")
        inner = {f"blocks.0.{layer}.weight" for layer in layers}
    assert found == inner


def test_one_cycle_moves_the_momentum_of_both() -> None:
    watch = fit(partial(Muon, lr=0.01), OneCycle, max_epochs=1)
    of_matrices, of_biases = watch.optimizer.param_groups[0], watch.optimizer.param_groups[-1]
    assert of_matrices["momentum"] == of_biases["betas"][0] == pytest.approx(0.95, abs=0.01)
    assert of_matrices["betas"] == (0.9, 0.95)


def test_a_weight_without_a_gradient_stays() -> None:
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([used, unused], lr=0.1)
    used.grad = torch.eye(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2, 2))
    assert not torch.equal(used, torch.ones(2, 2))
    assert unused not in optimizer.state


def test_a_momentum_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="momentum must be"):
        Muon(parameters(), momentum=1.0)
