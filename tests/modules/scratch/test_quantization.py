"""Quantization from first principles equals bitsandbytes."""

import pytest
import torch

from modules.nets.layers.quantized import absmax
from modules.scratch.quantization import (
    dequantize_absmax,
    dequantize_nf4,
    nf4_values,
    pack,
    quantize_absmax,
    quantize_nf4,
)

WEIGHT = torch.randn(24, 128, generator=torch.manual_seed(0)) * 0.02


@pytest.fixture(scope="module")
def functional():
    pytest.importorskip("bitsandbytes")
    import bitsandbytes.functional

    return bitsandbytes.functional


def test_absmax_equals_the_library(functional):
    numbers, scale = quantize_absmax(WEIGHT)
    theirs, largest, _ = functional.int8_vectorwise_quant(WEIGHT.half())
    assert (numbers.int() - theirs.int()).abs().max() <= 1  # theirs is computed in float16
    assert (numbers == theirs).float().mean() > 0.97
    torch.testing.assert_close(scale * 127, largest.flatten(), rtol=1e-3, atol=0)
    assert (dequantize_absmax(numbers, scale) - WEIGHT).abs().max() <= scale.max() / 2 * 1.001


def test_absmax_equals_that_of_the_layers():
    for own, layer in zip(quantize_absmax(WEIGHT), absmax(WEIGHT), strict=True):
        assert torch.equal(own, layer)


def test_nf4_equals_the_library(functional):
    torch.testing.assert_close(nf4_values(), functional.get_4bit_type("nf4", device="cpu"))
    indices, scale = quantize_nf4(WEIGHT)
    packed, state = functional.quantize_4bit(WEIGHT, blocksize=64, quant_type="nf4")
    assert torch.equal(scale, state.absmax)
    assert torch.equal(pack(indices), packed.flatten())
    torch.testing.assert_close(
        dequantize_nf4(indices, scale, WEIGHT.shape), functional.dequantize_4bit(packed, state)
    )


def test_nf4_has_a_smaller_error_than_equal_steps_for_normal_weights():
    error = (dequantize_nf4(*quantize_nf4(WEIGHT), WEIGHT.shape) - WEIGHT).square().mean()
    blocks = WEIGHT.reshape(-1, 64)
    step = blocks.abs().amax(dim=1, keepdim=True) / 7
    equal_steps = ((blocks / step).round() * step - blocks).square().mean()
    assert error < 0.9 * equal_steps
