"""LSTM under autocast on CPUs with and without a low-precision kernel."""

import pytest
import torch

from modules.nets.layers import recurrent
from modules.nets.layers.recurrent import LSTM, has_lstm_kernel


def test_lstm_runs_in_float32_without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "has_lstm_kernel", lambda dtype: False)
    layer, x = LSTM(4, 4, batch_first=True), torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, (h, _) = layer(x.bfloat16(), (torch.zeros(1, 2, 4),) * 2)
    assert outputs.dtype == h.dtype == torch.float32
    assert torch.equal(outputs, layer(x.bfloat16().float())[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lstm_trains_under_autocast_on_this_cpu(dtype: torch.dtype) -> None:
    layer = LSTM(4, 4)
    with torch.autocast("cpu", dtype):
        outputs, _ = layer(torch.randn(3, 2, 4))
    outputs.float().sum().backward()
    assert layer.weight_ih_l0.grad is not None
    assert layer.weight_ih_l0.grad.isfinite().all()


def test_query_of_the_kernel_draws_no_random_numbers() -> None:
    has_lstm_kernel.cache_clear()
    before = torch.get_rng_state()
    has_lstm_kernel(torch.bfloat16)
    assert torch.equal(before, torch.get_rng_state())
