"""Dropout with masks from random bytes."""

import math

import pytest
import torch
from torch import Tensor

from modules.nets.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_dropped_fraction_and_mean_are_right_in_every_byte_lane(p):
    torch.manual_seed(0)
    n, q = 80_000, round(256 * p) / 256
    y = Dropout(p)(torch.ones(n, 8))  # byte i mod 8 of a random word decides element i
    dropped = (y == 0).double().mean(dim=0)
    assert (dropped - q).abs().max() < 4.5 * math.sqrt(q * (1 - q) / n)
    torch.testing.assert_close(y[y > 0].unique(), torch.tensor([1 / (1 - q)]))
    assert y.double().mean().item() == pytest.approx(1, abs=4.5 * math.sqrt(q / (1 - q) / (8 * n)))


def test_dropout_keeps_the_memory_format():
    torch.manual_seed(0)
    x = torch.ones(20, 10, 8, 8).contiguous(memory_format=torch.channels_last)
    y = Dropout(0.25)(x)
    assert y.stride() == x.stride()
    assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    strided = Dropout(0.25)(x[:, ::2])  # not contiguous
    assert (strided == 0).double().mean().item() == pytest.approx(0.25, abs=0.025)
    assert strided.shape == (20, 5, 8, 8)


def test_dropout_is_the_identity_in_eval_mode_and_reproducible_in_training():
    x = torch.randn(33, 7)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x
    torch.manual_seed(3)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradient_has_the_mask_of_the_forward_pass(compiled):
    torch.manual_seed(0)
    first, second = Dropout(0.3), Dropout(0.3)

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        return first(x * 2), second(x * 2)

    x = torch.ones(1000, requires_grad=True)
    a, b = (torch.compile(twice, fullgraph=True) if compiled else twice)(x)
    assert not torch.equal(a, b)  # the compiler must not merge the two masks
    (a + b).sum().backward()
    torch.testing.assert_close(x.grad, (a + b).detach())
