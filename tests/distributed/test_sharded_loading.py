"""A network on the meta device gets the weights of one process, one matrix at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from engine.distributed.deferred_init import DeferredInit
from engine.errors import UserError
from modules.nets import GPT, BertMLM, ResNet, Transformer
from tests.support import ROOT, many_devices, sharded_loading

NETS: dict[str, Callable[[], nn.Module]] = {
    "gpt": lambda: GPT(50, 16, num_layers=2, num_heads=2, dim=16),
    "bert": lambda: BertMLM(50, 16, 2, 2, 16),
    "transformer": lambda: Transformer(50, 50, dim=16, num_heads=2, num_layers=1),
    "resnet": lambda: ResNet(10, 3),
    "padding": lambda: nn.Embedding(7, 5, padding_idx=2),
}


@pytest.mark.parametrize("name", NETS)
def test_deferred_weights_are_those_of_the_network_built_as_usual(name: str) -> None:
    torch.manual_seed(0)
    expected = NETS[name]()
    state = torch.get_rng_state()
    torch.manual_seed(0)
    with DeferredInit() as init:
        net = NETS[name]()
    assert torch.equal(torch.get_rng_state(), state)
    functions = init.weights(net)
    matrices = {n for n, weight in expected.named_parameters() if weight.ndim > 1}
    assert functions.keys() == matrices
    for key, weight in expected.named_parameters():
        found = functions[key]() if key in matrices else net.get_parameter(key)
        assert torch.equal(found, weight), key
    assert not any(weight.is_meta for weight in NETS[name]().parameters())


def test_initialization_from_other_values_is_refused() -> None:
    with DeferredInit():
        net = nn.Linear(4, 4)
        with pytest.raises(UserError, match="meta_device"):
            nn.init.orthogonal_(net.weight)
    with DeferredInit() as init:  # values that come before the parameter are kept
        holder = nn.Module()
        holder.weight = nn.Parameter(torch.ones(3, 3))
    assert not init.weights(holder)


def test_init_from_and_adapters_are_refused(refused: Callable[..., str]) -> None:
    strategy = ("--config", ROOT / "configs/trainer/fsdp.yaml", "--trainer.strategy.meta_device")
    config = ("--config", ROOT / "configs/source/gpt.yaml", *strategy, "true")
    lora = ("--config", ROOT / "configs/adapter/lora.yaml")
    assert "meta_device does not support --init_from" in refused("fit", *config, *lora)


@pytest.mark.slow
def test_no_process_holds_the_network(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=512, intermediate_size=1536, num_hidden_layers=16,
        num_attention_heads=8,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama", max_shard_size="50MB")
    many_devices.start(2, tmp_path, sharded_loading.__file__)
    for rank in range(2):
        results: dict[str, Any] = json.loads((tmp_path / f"loaded-{rank}.json").read_text())
        for name, found in results.items():
            assert found["size"] > 200e6
            assert found["equal"], name
        # The shard is half of the network; 0.7 of it were measured.
        size, (deferred, as_usual) = results["gpt"]["size"], results["gpt"]["growth"]
        assert deferred < 0.8 * size < size < as_usual
