"""Batch norm written out for the compiler: torch's own numbers, wherever it takes its place."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from modules.nets.layers.batch_norm import BatchNorm2d
from tests.support.compiled_net import compiled, written_out

CHANNELS = 5


def pictures(rows: int = 6, mean: float = 3.0) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    x = mean + torch.randn(rows, CHANNELS, 8, 7, generator=draw)
    return x.contiguous(memory_format=torch.channels_last)


def train(net: nn.Module, x: Tensor, steps: int = 3) -> dict[str, Tensor]:
    """What comes out in the end, all gradients, and what is remembered."""
    draw = torch.Generator().manual_seed(1)  # compiling may draw from the global one
    net.weight.data.copy_(torch.linspace(0.5, 2, CHANNELS))
    net.bias.data.copy_(torch.linspace(-1, 1, CHANNELS))
    nn.init.constant_(net.running_mean, x.mean().round())  # as after some steps
    x = x.detach().requires_grad_()
    for _ in range(steps):
        y = net(x)
        net.zero_grad()
        x.grad = None
        y.backward(torch.randn(y.shape, generator=draw).to(y.dtype))
    gradients = {"x": x.grad, "weight": net.weight.grad, "bias": net.bias.grad}
    return {"y": y.detach(), **gradients, **{f"kept {k}": v for k, v in net.named_buffers()}}


@pytest.mark.parametrize("mean", [0.0, 3.0, 300.0])
def test_it_is_torchs_own(mean: float) -> None:
    x = pictures(mean=mean)
    expected = train(nn.BatchNorm2d(CHANNELS).double(), x.double())
    theirs = train(nn.BatchNorm2d(CHANNELS), x)
    net, called = compiled(BatchNorm2d(CHANNELS))
    ours = train(net, x)
    assert written_out(called)
    assert ours["y"].is_contiguous(memory_format=torch.channels_last)
    for name, exact in expected.items():
        error, allowed = ((got[name] - exact).abs().max() for got in (ours, theirs))
        assert error <= 4 * allowed + 2e-6, name


def test_bfloat16_is_read_and_written_and_nothing_else_is_rounded() -> None:
    x = pictures().bfloat16()
    expected = train(nn.BatchNorm2d(CHANNELS), x.float())
    net, called = compiled(BatchNorm2d(CHANNELS))
    ours = train(net, x)
    assert written_out(called)
    assert (ours["y"].dtype, ours["x"].dtype) == (torch.bfloat16, torch.bfloat16)
    assert ours["weight"].dtype == torch.float32
    for name in ("y", "kept running_mean", "kept running_var"):
        torch.testing.assert_close(ours[name].float(), expected[name], rtol=4e-3, atol=1e-6)
    for name in ("x", "weight", "bias"):  # whose gradients come in bfloat16
        torch.testing.assert_close(ours[name].float(), expected[name], rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda net: net.eval(), id="evaluated"),
        pytest.param(lambda net: net.double(), id="float64"),
    ],
)
def test_elsewhere_it_is_torchs_own_that_runs(change: Callable) -> None:
    net, called = compiled(BatchNorm2d(CHANNELS))
    nets = nn.BatchNorm2d(CHANNELS), net
    for net in nets:
        change(net)
    x = pictures().to(nets[0].weight.dtype)
    expected, ours = (train(net, x) for net in nets)
    assert not written_out(called)
    torch.testing.assert_close(ours, expected)


def test_what_is_not_compiled_is_torchs_own() -> None:
    expected, ours = (train(kind(CHANNELS), pictures()) for kind in (nn.BatchNorm2d, BatchNorm2d))
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_one_value_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchNorm2d(CHANNELS)(torch.ones(1, CHANNELS, 1, 1))
