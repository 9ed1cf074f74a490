"""LoRA from first principles equals peft's: outputs, gradients and merged weights."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from modules.nets import GPT
from modules.scratch.lora import LoRALinear, add_lora, merge_lora

NAMES = ["blocks.0.attention.qkv", "blocks.1.mlp.proj"]


def test_lora_equals_peft() -> None:
    ours = GPT(20, context=8, num_layers=2, num_heads=2, dim=8)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=NAMES)
    theirs = get_peft_model(deepcopy(ours), config)
    add_lora(ours, NAMES, rank=3, alpha=5)
    for name in NAMES:
        layer, reference = ours.get_submodule(name), theirs.base_model.model.get_submodule(name)
        layer.B.data.normal_()
        reference.lora_A.default.weight.data.copy_(layer.A.data)
        reference.lora_B.default.weight.data.copy_(layer.B.data)
    tokens = torch.randint(0, 20, (2, 6))
    logits, expected = ours(tokens)[0], theirs(tokens)[0]
    torch.testing.assert_close(logits, expected)
    for result in (logits, expected):
        result.square().sum().backward()
    trained = [p.grad for p in ours.parameters() if p.requires_grad]
    references = [p.grad for p in theirs.parameters() if p.requires_grad]
    assert len(trained) == len(references) == 4
    for gradient, reference in zip(trained, references, strict=True):
        torch.testing.assert_close(gradient, reference)
    merged, reference = merge_lora(ours), theirs.merge_and_unload()
    for name in NAMES:
        weights = (net.get_submodule(name).weight for net in (merged, reference))
        torch.testing.assert_close(*weights)
    torch.testing.assert_close(merged(tokens)[0], logits, atol=1e-5, rtol=1e-5)


def test_update_starts_at_zero_and_is_scaled_by_alpha_over_rank() -> None:
    layer = torch.nn.Linear(4, 3)
    x = torch.rand(2, 4)
    adapted = LoRALinear(layer, rank=2, alpha=6)
    assert torch.equal(adapted(x), layer(x))
    adapted.B.data.fill_(1)
    update = (adapted(x) - layer(x))[0, 0].item()
    assert update == pytest.approx((3 * adapted.A @ x[0]).sum().item(), rel=1e-5)
