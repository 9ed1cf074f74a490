"""Adapters freeze a network, start from its outputs and receive the gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modules.adapters import IA3, Adapter, DoRA, HeadOnly, LoRA, PrefixTuning
from modules.adapters.layers import remove_adapter
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import GPT, MLP, BertClassifier, BertMLM, TextRNN, Transformer

TOKENS = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0))
TEXTS = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
PAIRS = TEXTS | {"decoder_input_ids": TOKENS}
NETS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (lambda: MLP(image_size=4, hidden_sizes=[6]), torch.rand(2, 1, 4, 4)),
    "gpt": (lambda: GPT(20, context=8, num_layers=2, num_heads=2, dim=8), TOKENS),
    "untied gpt": (
        lambda: GPT(20, 8, num_layers=1, num_heads=2, dim=8, tie_embeddings=False),
        TOKENS,
    ),
    "bert": (lambda: BertClassifier(3, 20, context=8, num_layers=1, num_heads=2, dim=8), TEXTS),
    "masked bert": (lambda: BertMLM(20, context=8, num_layers=1, num_heads=2, dim=8), TEXTS),
    "transformer": (
        lambda: Transformer(20, 20, context=8, num_layers=1, num_heads=2, dim=8),
        PAIRS,
    ),
}
METHODS = [LoRA(rank=2), LoRA(rank=2, use_rslora=True), DoRA(rank=2), IA3(), HeadOnly()]


def outputs(net: nn.Module, inputs: Any) -> torch.Tensor:
    found = net(inputs)
    return found[0] if isinstance(found, tuple) else found


def trained(net: nn.Module) -> list[str]:
    return [name for name, parameter in net.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_adapter_starts_at_the_network_and_is_all_that_is_trained(
    name: str, method: Adapter
) -> None:
    make, inputs = NETS[name]
    net = make().eval()
    if isinstance(method, HeadOnly) and name in ("gpt", "masked bert", "transformer"):
        with pytest.raises(ValueError, match="no output layer of its own"):
            method.apply(net)
        return
    before, kind, names = outputs(net, inputs), type(net), {*net.state_dict()}
    method.apply(net)
    assert type(net) is kind
    assert {key.replace(".base_layer", "") for key in net.state_dict()} >= names
    torch.testing.assert_close(outputs(net, inputs), before)
    outputs(net.train(), inputs).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    added = [key for key in trained(net) if key.replace(".base_layer", "") not in names]
    assert bool(added) != isinstance(method, HeadOnly)


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_head_of_a_classifier_is_trained_and_not_adapted(name: str) -> None:
    net = NETS[name][0]()
    head: Any = net.head
    LoRA(rank=2).apply(net)
    assert net.head is head
    assert type(head) is nn.Linear
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_output_layer_of_a_language_model_is_neither_adapted_nor_trained() -> None:
    net: Any = NETS["untied gpt"][0]()
    LoRA(rank=2).apply(net)
    assert type(net.head) is nn.Linear
    assert not net.head.weight.requires_grad


@pytest.mark.parametrize("name", [name for name in NETS if name != "mlp"])
def test_prefix_changes_all_outputs_and_is_all_that_is_trained(name: str) -> None:
    net, inputs = NETS[name][0]().eval(), NETS[name][1]
    before = outputs(net, inputs)
    PrefixTuning(length=3).apply(net)
    head = {f"head.{part}" for part in ("weight", "bias")} if name == "bert" else set()
    assert {key for key in trained(net) if "prefix" not in key} == head
    for key, parameter in net.named_parameters():
        if "prefix" in key:
            parameter.data.normal_()
    changed = outputs(net, inputs)
    assert ((changed - before).abs().amax(dim=-1) > 1e-5).all()
    changed.square().sum().backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    remove_adapter(net, merge=False)
    assert torch.equal(outputs(net, inputs), before)


def test_prefix_keeps_the_context_and_causality_and_generates_with_a_cache() -> None:
    net: Any = NETS["gpt"][0]().eval()
    PrefixTuning(length=3).apply(net)
    tokens = torch.arange(8)[None]
    logits = net(tokens)[0]
    tokens[0, -1] = 0
    assert torch.equal(net(tokens)[0][:, :-1], logits[:, :-1])
    texts = [
        list(generate(net, [[1, 2]], 6, Sampling(top_k=1), cached)) for cached in (True, False)
    ]
    assert texts[0] == texts[1]


def test_target_modules_select_layers() -> None:
    def adapted(target: Any) -> set[str]:
        net = NETS["gpt"][0]()
        LoRA(rank=2, target_modules=target).apply(net)
        return {name.partition(".lora_A")[0] for name in trained(net) if "lora_A" in name}

    assert adapted(["attention.qkv"]) == {f"blocks.{n}.attention.qkv" for n in (0, 1)}
    assert adapted(["proj"]) == {
        f"blocks.{n}.{p}.proj" for n in (0, 1) for p in ("attention", "mlp")
    }
    assert adapted(r"blocks\.1\..*up") == {"blocks.1.mlp.up"}
    assert len(adapted("all-linear")) == 8


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        LoRA(rank=0)
    with pytest.raises(ValueError, match="dropout"):
        DoRA(dropout=1.0)
    with pytest.raises(ValueError, match="length must be at least 1"):
        PrefixTuning(length=0)
    with pytest.raises(ValueError, match="MLP has no self-attention"):
        PrefixTuning().apply(NETS["mlp"][0]())
    with pytest.raises(ValueError, match=r"matches no layer of GPT.*blocks.0.attention.qkv"):
        LoRA(target_modules=["query"]).apply(NETS["gpt"][0]())
    with pytest.raises(ValueError, match=r"no linear layer besides its head: use .*HeadOnly"):
        LoRA().apply(TextRNN(2, 20))


def test_ia3_scales_the_inputs_of_the_second_feed_forward_layer() -> None:
    net: Any = NETS["gpt"][0]()
    IA3().apply(net)
    mlp = net.blocks[0].mlp
    assert mlp.proj.ia3_l["default"].shape == (1, 32)
    assert mlp.up.ia3_l["default"].shape == (32, 1)
