"""Linear layers that multiply a few rows on all cores."""

import time
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import modules.nets.layers.linear
from modules.inference.generation import generate
from modules.nets import GPT
from modules.nets.layers.linear import FEW, Linear, cutting_pays, linear


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The weights of each product that was cut, on a machine of four threads where that pays."""
    seen = []
    inner = modules.nets.layers.linear.cut

    def cut(x: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        seen.append(weight.numel())
        return inner(x, weight, groups)

    monkeypatch.setattr(modules.nets.layers.linear, "cut", cut)
    monkeypatch.setattr(modules.nets.layers.linear, "cutting_pays", lambda threads: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    return seen


@pytest.mark.parametrize("outputs", [1024, 1027, 3])
@pytest.mark.parametrize("shape", [(1, 1), (FEW, 1), (2, 2), (1,), (2, 1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_in_groups_it_is_the_same_product(
    cuts: list[int], outputs: int, shape: tuple[int, ...], bias: bool
) -> None:
    torch.manual_seed(0)
    layer = Linear(2**17 // outputs + 1, outputs, bias=bias)
    x = torch.randn(*shape, layer.in_features)
    with torch.inference_mode():
        torch.testing.assert_close(
            layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=0
        )
    assert len(cuts) == 1


def test_only_what_gains_by_it_is_cut(cuts: list[int]) -> None:
    weight, x = torch.randn(1024, 256), torch.randn(1, 256)
    parameter = nn.Parameter(weight)
    linear(x, parameter)  # gradients may be asked for
    with torch.inference_mode():
        linear(torch.randn(FEW + 1, 256), weight)
        linear(torch.randn(0, 256), weight)
        linear(x, weight[:64])
        linear(x.bfloat16(), weight.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        assert not cuts
        linear(x, parameter)
    assert cuts == [1024 * 256]


def test_a_text_goes_on_alike(cuts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = GPT(65, context=64, num_layers=2, num_heads=2, dim=256).eval()

    def text() -> list[list[int | None]]:
        return list(islice(generate(net, [[1, 2], [3]], 100, seed=1), 100))

    in_groups = text()
    assert cuts
    monkeypatch.setattr(modules.nets.layers.linear, "cutting_pays", lambda threads: False)
    cuts.clear()
    assert text() == in_groups
    assert not cuts


@pytest.mark.parametrize("slow", ["cut", "linear", None])
def test_it_is_cut_where_that_was_measured_to_be_faster(
    slow: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taking(name: str) -> Callable[..., None]:
        return lambda *operands: time.sleep(0.003 if name == slow else 0.001)

    monkeypatch.setattr(modules.nets.layers.linear, "cut", taking("cut"))
    monkeypatch.setattr(F, "linear", taking("linear"))
    measured = cutting_pays.__wrapped__  # not what is remembered
    assert measured(threads=2) == (slow == "linear")
    assert not measured(threads=1)  # there is nothing to share
