"""FlashAttention from scratch equals PyTorch's, and holds no matrix of scores."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from modules.scratch import flash_attention as scratch
from modules.scratch.flash_attention import flash_attention
from tests.support import triton_attention

SHAPES = [(64, 64), (130, 130), (1, 1), (70, 200), (200, 70)]  # T and S; TILE is 64


def draw(T: int, S: int, K: int = 16, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 3, length, K) for length in (T, S, S))
    q, k, v = (torch.randn(*size, generator=generator, **options) for size in sizes)
    return q, k, v


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("T", "S"), SHAPES)
def test_values_and_gradients_equal_those_of_pytorch(T: int, S: int, is_causal: bool) -> None:
    inputs = draw(T, S, dtype=torch.float64)
    results = []
    for attention in (flash_attention, F.scaled_dot_product_attention):
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = attention(*leaves, is_causal=is_causal)
        output.backward(output.detach().sin())
        results.append((output, *(x.grad for x in leaves)))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() < 1e-12


def test_gradients_equal_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "TILE", 2)
    inputs = [x[:1, :1, :, :2].requires_grad_() for x in draw(3, 3, dtype=torch.float64)]
    for is_causal in (False, True):
        assert torch.autograd.gradcheck(lambda *x: flash_attention(*x, is_causal), inputs)  # noqa: B023


def test_no_tensor_has_the_size_of_the_scores() -> None:
    q, k, v = draw(1024, 1024)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        flash_attention(q, k, v)
    events = recorded.profiler.kineto_results.events()
    largest = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert largest <= q.nbytes < 2 * 3 * 1024 * 1024 * 4


@pytest.mark.slow
def test_triton_kernel_equals_pytorch(tmp_path: Path) -> None:
    """On a GPU, or in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    program = [sys.executable, triton_attention.__file__]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert len(differences) == 2 * len(triton_attention.SHAPES)
    assert max(max(values) for values in differences) < 1e-5  # outputs, and gradients of q, k, v
