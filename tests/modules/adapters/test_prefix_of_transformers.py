"""Prefixes of networks of transformers: equal to keys and values in a cache, removable, trained."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from modules.adapters import PrefixTuning
from modules.adapters.layers import remove_adapter
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import PretrainedCausalLM, PretrainedClassifier
from tests.support.huggingface import CONFIGS, DECODERS, ENCODERS, VOCAB_SIZE

LENGTH = 3


def with_prefix(net: Any) -> Any:
    """Add a prefix that is large enough to matter."""
    PrefixTuning(length=LENGTH).apply(net)
    for name, parameter in net.named_parameters():
        if "prefix" in name:
            parameter.data.normal_()
    return net


def attention_layers(net: nn.Module) -> list[Any]:
    return [module for module in net.modules() if hasattr(module, "prefix_keys")]


@pytest.mark.parametrize("kind", DECODERS)
def test_a_prefix_equals_keys_and_values_of_a_cache_without_positions(kind: str) -> None:
    net = PretrainedCausalLM(config={"model_type": kind, **CONFIGS[kind]}).eval()
    tokens = torch.randint(VOCAB_SIZE, (2, 5))
    before = net(tokens)[0]
    with_prefix(net)
    layers = attention_layers(net)
    assert len(layers) == 2
    changed = net(tokens)[0]  # (B, T, V)
    documents = torch.tensor([[0, 0, 0, 1, 1]] * 2)
    packed = net(tokens, documents=documents)[0]
    torch.testing.assert_close(packed[:, 3:], net(tokens[:, 3:])[0])

    pairs = [(x.prefix_keys[None], x.prefix_values[None]) for x in layers]
    remove_adapter(net, merge=False)
    assert torch.equal(net(tokens)[0], before)
    cache = DynamicCache(config=net.model.config)
    for number, (keys, values) in enumerate(pairs):
        cache.update(keys.expand(2, -1, -1, -1), values.expand(2, -1, -1, -1), number)
    options = {"attention_mask": torch.ones(2, LENGTH + 5), "position_ids": torch.arange(5)[None]}
    expected = net.model(input_ids=tokens, past_key_values=cache, **options).logits
    torch.testing.assert_close(changed, expected)
    assert (changed - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ENCODERS)
def test_padding_changes_nothing_and_only_prefix_and_head_are_trained(kind: str) -> None:
    config = {"model_type": kind, **CONFIGS[kind]}
    net = with_prefix(PretrainedClassifier(3, config=config)).eval()
    ids, mask = torch.randint(5, VOCAB_SIZE, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    logits = net({"input_ids": ids, "attention_mask": mask})
    short = {"input_ids": ids[:, :4], "attention_mask": mask[:, :4]}
    torch.testing.assert_close(logits, net(short))
    weights = net.attention_weights(short)  # (B, T)
    assert (weights.sum(dim=1) < 0.999).all()  # the rest is that of the prefix
    net.train()(short).square().sum().backward()
    backbone = {
        f"model.{net.model.base_model_prefix}.{n}" for n, _ in net.backbone.named_parameters()
    }
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert ("prefix" in name or name not in backbone) == parameter.requires_grad, name


def test_generation_with_a_cache_equals_generation_without() -> None:
    net = with_prefix(PretrainedCausalLM(config={"model_type": "llama", **CONFIGS["llama"]})).eval()
    greedy = Sampling(top_k=1)
    texts = [list(generate(net, [[1, 2]], 6, greedy, cached)) for cached in (True, False)]
    assert texts[0] == texts[1]


def test_attention_that_cannot_be_replaced_is_refused() -> None:
    config = {"model_type": "mamba", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1}
    net = PretrainedCausalLM(config=config)
    with pytest.raises(ValueError, match="PrefixTuning: "):
        PrefixTuning().apply(net)
