"""What is written out for the compiler: torch's own numbers, wherever it takes its place."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import CNN, VGG, ResNet, ResNet9
from modules.nets.layers.relu import ReLU, relu
from modules.nets.layers.subsampling import MaxPool2d, every_other
from tests.support.compiled_net import compiled, written_out


class Layer(nn.Module):
    """A function as a module, of something that another layer gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(2 * x)


WAYS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (relu, F.relu),
    "ReLU": (ReLU(inplace=True), F.relu),
    "MaxPool2d": (MaxPool2d(2), lambda x: F.max_pool2d(x, 2)),
    "every_other": (
        lambda x: every_other(x, 3),
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, 3)),
    ),
}


def pictures(height: int = 6, width: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    """Multiples of one number: many are equal, and many are 0."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (3, 5, height, width), generator=draw).to(dtype) / 3
    return x.contiguous(memory_format=torch.channels_last)


def there_and_back(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (gradient,) = torch.autograd.grad(y, x, g)
    return y.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_torchs_own(way: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    ours, theirs = WAYS[way]
    x = pictures(*size, dtype=dtype)
    expected = there_and_back(Layer(theirs), x)
    net, called = compiled(Layer(ours))
    seen = there_and_back(net, x)
    assert written_out(called)
    for ours_is, theirs_is in zip(seen, expected, strict=True):
        assert ours_is.dtype == dtype
        assert torch.equal(ours_is, theirs_is)
        assert ours_is.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_compiled_is_torchs_own(way: str) -> None:
    layers = [Layer(function) for function in WAYS[way]]
    (y, gradient), expected = (there_and_back(layer, pictures()) for layer in layers)
    assert torch.equal(y, expected[0])
    assert torch.equal(gradient, expected[1])


@pytest.mark.parametrize(
    ("pool", "order"),
    [
        (MaxPool2d(3, 2, 1), torch.channels_last),
        (MaxPool2d(2, ceil_mode=True), torch.channels_last),
        (MaxPool2d(2), torch.contiguous_format),
    ],
)
def test_pooling_of_another_kind_or_order_is_torchs_own(
    pool: MaxPool2d, order: torch.memory_format
) -> None:
    x = pictures().contiguous(memory_format=order)
    expected = there_and_back(Layer(pool), x)
    net, called = compiled(Layer(pool))
    seen = there_and_back(net, x)
    assert not written_out(called)
    for ours, theirs in zip(seen, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("way", WAYS)
def test_without_gradients_it_is_torchs_own(way: str) -> None:
    ours, theirs = WAYS[way]
    net, called = compiled(Layer(ours))
    with torch.no_grad():
        assert torch.equal(net(pictures()), Layer(theirs)(pictures()))
    assert not written_out(called)


NETS: dict[str, Callable[[], nn.Module]] = {
    "CNN": lambda: CNN(image_size=9, channels=[4, 6], hidden_size=8),
    "VGG": lambda: VGG(image_size=9, width=4, hidden_size=8, batch_norm=True),
    "ResNet": lambda: ResNet(image_size=9, width=4),
    "ResNet9": lambda: ResNet9(image_size=9, width=4, dropout=0.5),
}


@pytest.mark.parametrize("name", NETS)
def test_a_compiled_net_learns_what_it_learns_as_it_is(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().to(memory_format=torch.channels_last)
    x = torch.randn(4, 1, 9, 9).contiguous(memory_format=torch.channels_last)

    def gradients() -> dict[str, Tensor]:
        torch.manual_seed(1)  # of dropout
        net.zero_grad()
        net(x).square().sum().backward()
        return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}

    expected = gradients()
    _, called = compiled(net)
    seen = gradients()
    assert written_out(called)
    assert len(expected) == len(list(net.parameters()))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
