"""Quantized networks give nearly the same logits with a fraction of the memory."""

import copy

import pytest
import torch
from torch import nn

from modules.nets import GPT, PretrainedCausalLM
from modules.nets.layers.quantized import (
    Int8Linear,
    absmax,
    quantize,
    weight_bytes,
)

V = 64
LLAMA = {
    "model_type": "llama",
    "vocab_size": V,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "pretrained":
        return PretrainedCausalLM(config=LLAMA).eval()
    tied = {"tie_embeddings": kind == "tied"}
    return GPT(V, context=32, num_layers=2, num_heads=2, dim=64, **tied).eval()


@pytest.mark.parametrize("kind", ["tied", "untied", "pretrained"])
@pytest.mark.parametrize(("bits", "error", "memory"), [("int8", 0.02, 0.3), ("int4", 0.2, 0.25)])
@torch.inference_mode()
def test_logits_and_memory(kind, bits, error, memory):
    net = make(kind)
    tokens = torch.randint(V, (2, 24), generator=torch.manual_seed(1))  # more than FUSED_ROWS
    expected, before = net(tokens)[0], weight_bytes(net)
    quantize(net, bits)
    for count in (24, 3):
        logits = net(tokens[:, :count])[0]
        assert (logits - expected[:, :count]).norm() < error * expected[:, :count].norm()
        assert not torch.equal(logits, expected[:, :count])
    assert weight_bytes(net) < memory * before


@torch.inference_mode()
def test_int8_layer_equals_a_layer_with_rounded_weights():
    linear = nn.Linear(64, 48)
    numbers, scale = absmax(linear.weight)
    layer = Int8Linear(numbers, scale, linear.bias)
    rounded = copy.deepcopy(linear)
    rounded.weight.copy_(numbers * scale[:, None])
    for rows in (1, 8, 40):
        x = torch.randn(2, rows, 64)
        # bfloat16 has 8 bits
        torch.testing.assert_close(layer(x), rounded(x), atol=0.02, rtol=0.02)


def test_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="must be one of int8, int4, got int3"):
        quantize(make("tied"), "int3")
