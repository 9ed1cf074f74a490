"""Optimizers from scratch equal those of torch.optim."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn, optim

from modules.scratch import optimizers as own
from tests.support import TINY

PAIRS: dict[str, tuple[Callable[..., optim.Optimizer], Callable[..., optim.Optimizer]]] = {
    "SGD": (own.SGD, optim.SGD),
    "Momentum": (own.Momentum, partial(optim.SGD, momentum=0.9)),
    "Nesterov": (own.Nesterov, partial(optim.SGD, momentum=0.9, nesterov=True)),
    "RMSprop": (own.RMSprop, optim.RMSprop),
    "Adam": (own.Adam, optim.Adam),
    "AdamW": (own.AdamW, optim.AdamW),
}
OWN = {name: pair[0] for name, pair in PAIRS.items()}


def net_of(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)


def groups_of(net: nn.Module, weight_decay: float) -> list[dict]:
    """Return two parameter groups with different learning rate and weight decay."""
    first, _, last = net
    return [
        {"params": list(first.parameters()), "lr": 0.003},
        {"params": list(last.parameters()), "weight_decay": weight_decay / 10},
    ]


def train(net: nn.Module, optimizer: optim.Optimizer, steps: range) -> None:
    dtype = next(net.parameters()).dtype
    for step in steps:
        random = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 6, generator=random, dtype=dtype)
        targets = torch.randint(4, (16,), generator=random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()


def weights(net: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_weights_equal_those_of_torch_after_training(
    name: str, dtype: torch.dtype, weight_decay: float
) -> None:
    results = []
    for kind in PAIRS[name]:
        net = net_of(dtype)
        start = weights(net)
        optimizer = kind(groups_of(net, weight_decay), lr=0.01, weight_decay=weight_decay)
        train(net, optimizer, range(50))
        results.append(weights(net))
    ours, theirs = results
    assert (ours - start).abs().max() > 0.01  # training moved the weights
    # float32 sums in another order: a step of 0.01 differs by 1e-9, fifty of them by 1e-7.
    assert (ours - theirs).abs().max() < (1e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_defaults_equal_those_of_torch(name: str) -> None:
    ours, theirs = (kind([nn.Parameter(torch.zeros(1))]).defaults for kind in PAIRS[name])
    assert ours == {argument: theirs[argument] for argument in ours}


@pytest.mark.parametrize("name", OWN)
def test_resume_from_state_dict_is_bit_exact(name: str, tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, optim.Optimizer]:
        net = net_of(torch.float32)
        return net, OWN[name](groups_of(net, 0.1), lr=0.01, weight_decay=0.1)

    uninterrupted, first, second = make(), make(), make()
    train(*uninterrupted, range(40))
    train(*first, range(25))
    torch.save([part.state_dict() for part in first], tmp_path / "stopped.pt")
    saved = torch.load(tmp_path / "stopped.pt", weights_only=True)
    for part, state in zip(second, saved, strict=True):
        part.load_state_dict(state)
    train(*second, range(25, 40))
    assert torch.equal(weights(second[0]), weights(uninterrupted[0]))
    assert not torch.equal(weights(first[0]), weights(uninterrupted[0]))


def test_large_gradients_reduce_weight_decay_in_adam_but_not_in_adamw() -> None:
    lost = {}
    for name in ("Adam", "AdamW"):
        for decay in (0.0, 0.1):
            weight = nn.Parameter(torch.ones(2))
            optimizer = OWN[name]([weight], lr=0.01, weight_decay=decay)
            for step in range(200):  # alternating gradients, small and large
                weight.grad = (-1) ** step * torch.tensor([0.1, 10.0])
                optimizer.step()
            lost[name, decay] = 1 - weight.detach()
    small, large = lost["Adam", 0.1] - lost["Adam", 0.0]
    assert small > 10 * large
    small, large = lost["AdamW", 0.1] - lost["AdamW", 0.0]
    assert small.item() == pytest.approx(large.item(), rel=0.01)


def test_weights_without_gradient_do_not_change() -> None:
    for kind in OWN.values():
        trained, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        optimizer = kind([trained, frozen], lr=0.1, weight_decay=0.5)
        trained.grad = torch.ones(2)
        optimizer.step()
        assert not torch.equal(trained, torch.ones(2))
        assert torch.equal(frozen, torch.ones(2))
        assert torch.equal(trained.grad, torch.ones(2))


def test_step_calls_the_closure_and_returns_its_loss() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    optimizer = own.SGD([weight], lr=0.25)

    def closure() -> Tensor:
        optimizer.zero_grad()
        (loss := weight**2).backward()
        return loss

    assert optimizer.step(closure) == 4.0
    assert weight.item() == 1.0


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [("SGD", "lr", -1.0), ("Momentum", "momentum", -0.1), ("Adam", "betas", (0.9, 1.0)),
     ("RMSprop", "alpha", 1.0), ("AdamW", "weight_decay", float("nan"))],
)  # fmt: skip
def test_argument_out_of_range_is_named(name: str, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: {argument} must be at least 0"):
        OWN[name]([nn.Parameter(torch.zeros(1))], **{argument: value})


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_optimizer_works_in_a_training_run(name: str, run: Callable) -> None:
    path = f"modules.scratch.optimizers.{name}"
    flags = ("--model.optimizer", path, "--model.optimizer.lr", 0.01)
    schedule = ("--model.lr_scheduler", "modules.optim.WarmupCosine")
    folder = run("fit", "--config", TINY, *flags, *schedule, "--trainer.gradient_clip_val", 1.0)
    path = folder / "checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)["optimizer_states"][0]
    assert len(saved["param_groups"]) >= 1
    assert saved["param_groups"][0]["lr"] == pytest.approx(0.0, abs=1e-9)  # the schedule's end
    task = L.LightningModule.load_from_checkpoint(path, weights_only=True)
    assert type(task.optimizer(task.parameters())) is OWN[name]
