"""The loss in chunks equals that of all logits at once and never holds them."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from engine.errors import UserError
from modules import LanguageModel, PreferenceModel
from modules.adapters import LoRA
from modules.nets import GPT, Bigram, PretrainedCausalLM
from modules.nets.layers.chunked_loss import chunked_cross_entropy
from tests.support.huggingface import CONFIGS

V = 500
TOKENS = torch.randint(V, (3, 33), generator=torch.Generator().manual_seed(0))
INPUTS = TOKENS[:, :-1]
TARGETS = TOKENS[:, 1:].masked_fill(torch.arange(32) % 5 == 0, -100)
LLAMA = {"model_type": "llama", **CONFIGS["llama"], "vocab_size": V}
GEMMA = LLAMA | {"model_type": "gemma2", "head_dim": 8, "num_key_value_heads": 1}


def make(kind: str) -> nn.Module:
    if kind == "transformers":
        return PretrainedCausalLM(config=LLAMA)
    net = GPT(V, 32, num_layers=2, num_heads=2, dim=16, tie_embeddings=kind == "tied")
    if kind == "adapter":
        LoRA(rank=2, target_modules=["head"]).apply(net)
        for name, weight in net.named_parameters():  # the update is zero at the start
            if "lora" in name:
                nn.init.normal_(weight, std=0.5)
    return net


def loss_of(net: nn.Module, chunk_size: int | None) -> Tensor:
    if chunk_size is None:
        logits = net(INPUTS)[0].flatten(0, 1)
        return F.cross_entropy(logits, TARGETS.flatten(), reduction="sum")
    return net(INPUTS, targets=TARGETS, loss_chunk_size=chunk_size)[0]


@pytest.mark.parametrize("chunk_size", [1, 7, 96, 1000])
@pytest.mark.parametrize("kind", ["tied", "untied", "adapter", "transformers"])
def test_loss_and_gradients_equal_those_of_all_logits(kind: str, chunk_size: int) -> None:
    plain = make(kind)
    net = deepcopy(plain)
    expected, found = loss_of(plain, None), loss_of(net, chunk_size)
    expected.backward()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        if theirs.requires_grad:
            # Sums of up to 96 gradients, in another order: rounding of float32.
            assert (ours.grad - theirs.grad).abs().max() < 5e-6 * max(1, theirs.grad.abs().max())


def largest_allocation(function: Any) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = recorded.profiler.kineto_results.events()
    return max(event.nbytes() for event in events if event.name() == "[memory]")


def test_logits_of_all_tokens_are_never_allocated() -> None:
    net = GPT(5000, 32, num_layers=1, num_heads=2, dim=8)
    full = 4 * INPUTS.numel() * 5000  # bytes of the logits in float32
    assert largest_allocation(lambda: loss_of(net, None).backward()) >= full
    assert largest_allocation(lambda: loss_of(net, 8).backward()) < full / 4


def test_output_layer_is_computed_for_targets_only() -> None:
    head, rows = nn.Linear(4, V), []
    head.register_forward_hook(lambda layer, args, output: rows.append(len(output)))
    hidden, targets = torch.randn(2, 5, 4, requires_grad=True), torch.full((2, 5), -100)
    chunked_cross_entropy(head, hidden, targets, chunk_size=2).backward()
    assert (sum(rows), hidden.grad.abs().sum()) == (0, 0)
    rows.clear()
    targets[1, 2:] = 7
    chunked_cross_entropy(head, hidden, targets, chunk_size=2)
    assert rows == [2, 1]


def test_language_model_trains_with_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LanguageModel(make("tied"))
    task = LanguageModel(deepcopy(plain.net), loss_chunk_size=16)
    for documents in (None, torch.arange(32).expand(3, 32) // 10):
        inputs: Any = INPUTS
        if documents is not None:
            inputs = {"input_ids": INPUTS, "documents": documents}
        expected, found = (one._step((inputs, TARGETS), "val") for one in (plain, task))
        assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
        assert found[1] == expected[1]
    assert task.hparams["loss_chunk_size"] == 16


def test_what_does_not_support_chunks_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1, got 0"):
        LanguageModel(make("tied"), loss_chunk_size=0)
    with pytest.raises(UserError, match=r"Bigram does not support model\.loss_chunk_size"):
        LanguageModel(Bigram(V), loss_chunk_size=8)
    with pytest.raises(UserError, match="PreferenceModel does not support"):
        PreferenceModel(make("tied"), loss_chunk_size=8)
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        loss_of(PretrainedCausalLM(config=GEMMA), 8)
