"""Weights in shards: read when they are needed, and damaged files are named."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import generate
from modules.nets import PretrainedCausalLM
from modules.nets.huggingface.gpt import load_gpt
from tests.support import capped_loading
from tests.support.huggingface import make_model
from tests.support.language_models import user_error

TOKENS = torch.arange(1, 13)[None]
INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-0000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with several shards."""
    make_model("llama", "AutoModelForCausalLM").save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    return tmp_path


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_offloaded_blocks_give_the_same_logits_one_at_a_time(tmp_path: Path, kind: str) -> None:
    make_model(kind, "AutoModelForCausalLM").save_pretrained(tmp_path)
    plain, net = (PretrainedCausalLM(str(tmp_path), offload=o).eval() for o in (False, True))
    loaded = []

    def count(*_: Any) -> None:
        loaded.append([not any(p.is_meta for p in block.parameters()) for block in net.blocks])

    for block in net.blocks:
        block.register_forward_pre_hook(count)
    for _ in range(2):
        with torch.inference_mode():
            assert torch.equal(net(TOKENS)[0], plain(TOKENS)[0])
    assert loaded == 2 * [[True, False], [False, True]]
    assert all(weight.is_meta for weight in net.blocks.parameters())


@pytest.mark.slow
def test_model_larger_than_the_address_space_gives_the_same_logits(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=512, intermediate_size=1536, num_hidden_layers=16,
        num_attention_heads=8,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "llama", max_shard_size="50MB")
    program = [sys.executable, capped_loading.__file__]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "too large" in done.stdout
    with torch.inference_mode():
        expected = model(torch.arange(12)[None]).logits
    assert (torch.load(tmp_path / "logits.pt") - expected).abs().max() < 1e-5


def remove(folder: Path) -> str:
    (shard,) = folder.glob(f"{SHARD}*")
    shard.unlink()
    return f"has no {shard.name}"


def truncate(folder: Path) -> str:
    (shard,) = folder.glob(f"{SHARD}*")
    shard.write_bytes(shard.read_bytes()[:-10])
    return f"{shard.name} is damaged or incomplete"


def change_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], str]:
    def damage(folder: Path) -> str:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))
        return f"that {INDEX}"

    return damage


def empty_index(folder: Path) -> str:
    (folder / INDEX).write_text("{}")
    return f"{INDEX} is not an index of shards"


def move(weights: dict[str, str]) -> None:
    first, second = sorted({*weights.values()})[:2]
    weights[next(n for n, file in weights.items() if file == first)] = second


def omit(weights: dict[str, str]) -> None:
    del weights["model.norm.weight"]


@pytest.mark.parametrize(
    "damage",
    [remove, truncate, empty_index, change_index(move), change_index(omit)],
    ids=["missing", "truncated", "no index", "moved", "omitted"],
)
def test_shards_that_are_damaged_or_disagree_with_the_index_are_named(
    folder: Path, damage: Callable[[Path], str], capsys: pytest.CaptureFixture
) -> None:
    message = damage(folder)
    for options in ((), ("--offload",)):
        arguments = ("--checkpoint", folder, "--prompt", "To", *options)
        assert message in user_error(capsys, generate.main, *arguments)
    for load in (
        load_gpt,
        lambda f: PretrainedCausalLM(str(f)),
        lambda f: PretrainedCausalLM(str(f), offload=True),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            load(folder)
