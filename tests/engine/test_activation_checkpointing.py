"""Activation checkpointing changes what is saved, and neither gradients nor names."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from benchmarks.memory import SavedBytes
from callbacks import ActivationCheckpointing
from engine.activation_checkpointing import (
    checkpoint_activations,
    find_blocks,
    remove_checkpointing,
)
from engine.errors import UserError
from engine.run.flops import count_flops, fake_copy
from modules import LanguageModel
from modules.nets import CNN, GPT, BertMLM, PretrainedCausalLM, Transformer
from tests.support import ROOT
from tests.support.configs import ONE_STEP
from tests.support.huggingface import CONFIGS

TOKENS = torch.randint(5, 40, (2, 16), generator=torch.Generator().manual_seed(0))
TEXTS = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
LLAMA = {"model_type": "llama", **CONFIGS["llama"]}
NETS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "gpt": (lambda: gpt(dropout=0.2), TOKENS),
    "gpt without dropout": (lambda: gpt(dropout=0.0, positions="rotary"), TOKENS),
    "bert": (lambda: BertMLM(40, 16, 2, 2, 16), TEXTS),
    "transformer": (
        lambda: Transformer(40, 40, dim=16, num_heads=2, num_layers=2),
        TEXTS | {"decoder_input_ids": TOKENS},
    ),
    "transformers": (lambda: PretrainedCausalLM(config=LLAMA), TOKENS),
}


def gpt(**options: Any) -> GPT:
    return GPT(40, 16, num_layers=4, num_heads=2, dim=16, **options)


def gradients(net: nn.Module, inputs: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    output = net(inputs)
    logits = output[0] if isinstance(output, tuple) else output
    logits.logsumexp(dim=-1).sum().backward()
    return {name: weight.grad for name, weight in net.named_parameters()}


def saved_bytes(net: nn.Module) -> int:
    with SavedBytes(net) as saved:
        net(TOKENS)
    return sum(saved.sizes)


@pytest.mark.parametrize("mode", ["full", "selective"])
@pytest.mark.parametrize("name", NETS)
def test_gradients_are_equal_to_the_last_bit(name: str, mode: Any) -> None:
    make, inputs = NETS[name]
    plain = make()
    net = deepcopy(plain)
    assert len(checkpoint_activations(net, mode)) == len(find_blocks(plain)) > 1
    expected, found = gradients(plain, inputs), gradients(net, inputs)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "selective"])
@pytest.mark.parametrize("part", ["net", "blocks"])
def test_compiled_gradients_are_equal(part: str, mode: Any) -> None:
    plain = gpt(dropout=0.3)
    nets = plain, deepcopy(plain)
    checkpoint_activations(nets[1], mode)
    found = []
    for net in nets:
        torch.compiler.reset()
        for module in [net] if part == "net" else net.blocks:
            module.compile(backend="aot_eager_decomp_partition")  # the compiler without its kernels
        found.append(gradients(net, TOKENS))
    for name, expected in found[0].items():
        # 1e-5: the compiler may sum gradients in another order
        assert (found[1][name] - expected).abs().max() < 1e-5, name


def test_less_is_saved_the_more_blocks_are_checkpointed() -> None:
    plain = gpt()
    sizes = [saved_bytes(plain)]
    for every in (3, 2, 1):
        net = deepcopy(plain)
        assert len(checkpoint_activations(net, every=every)) == -(-4 // every)
        sizes.append(saved_bytes(net))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.2 * sizes[0]


def test_evaluation_and_copies_work_and_names_stay() -> None:
    net = gpt()
    names = [*net.state_dict()]
    checkpoint_activations(net)
    assert [*net.state_dict()] == names
    assert type(net.blocks[0]).__name__ == "Block"
    state = net.init_state(1)
    with torch.no_grad():
        step, _ = net(TOKENS[:1, :8], state)
        assert torch.equal(step, net(TOKENS[:1, :8])[0])
    copied = deepcopy(net)
    assert saved_bytes(copied) == saved_bytes(net)


def test_checkpointing_twice_recomputes_once() -> None:
    net = gpt()
    calls = []
    net.blocks[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(2):
        checkpoint_activations(net)
    gradients(net, TOKENS)
    assert len(calls) == 2
    remove_checkpointing(net)
    gradients(net, TOKENS)
    assert len(calls) == 3


def test_flops_do_not_count_recomputation() -> None:
    net = gpt()
    expected = count_flops(fake_copy(net), TOKENS)
    checkpoint_activations(net)
    assert count_flops(fake_copy(net), TOKENS) == expected


def test_network_without_blocks_is_refused() -> None:
    task = LanguageModel(CNN())
    with pytest.raises(UserError, match="CNN has no blocks"):
        ActivationCheckpointing().setup(L.Trainer(logger=False), task, "fit")
    with pytest.raises(UserError, match="every must be at least 1, got 0"):
        ActivationCheckpointing(every=0)


@pytest.mark.slow
def test_overlay_trains_with_the_losses_of_the_run_without_it(run: Callable[..., Path]) -> None:
    config = ("--config", ROOT / "configs/source/gpt.yaml")
    size = ("--config", ROOT / "configs/size/gpt-nano.yaml", "--model.net.dropout", 0.2)
    steps = (*ONE_STEP, "--trainer.max_steps", 3, "--trainer.limit_train_batches", 3)
    steps += ("--trainer.log_every_n_steps", 1, "--trainer.val_check_interval", 3)
    overlay = ("--config", ROOT / "configs/trainer/activation_checkpointing.yaml")
    runs = [run("fit", *config, *size, *more, *steps) for more in ((), overlay)]
    losses = [(folder / "metrics.csv").read_text().splitlines() for folder in runs]
    assert [line.split(",")[:3] for line in losses[0]] == [
        line.split(",")[:3] for line in losses[1]
    ]
