"""Texts of different lengths share a batch of a causal model of transformers."""

from typing import Any

import pytest
import torch
from torch import nn

from modules.inference.generation import NextLogits, generate
from modules.inference.sampling import Sampling
from modules.nets import PretrainedCausalLM
from tests.support.huggingface import CONFIGS, DECODERS, VOCAB_SIZE

SLIDING: dict[str, Any] = {"sliding_window": 4, "head_dim": 8}
KINDS = {
    **{kind: {} for kind in DECODERS},
    "mistral-sliding": SLIDING,
    "gemma3_text": SLIDING | {"layer_types": ["sliding_attention", "full_attention"]},
    "bloom": {"n_layer": 2, "n_head": 2},  # its positions follow from the mask
}


def make_net(kind: str) -> PretrainedCausalLM:
    """Return a random network whose tokens depend on many previous ones."""
    name = kind.partition("-")[0]
    config = CONFIGS.get(name, CONFIGS["llama"]) | KINDS[kind] | {"model_type": name}
    net = PretrainedCausalLM(config=config).eval()
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


@pytest.fixture(params=KINDS)
def net(request: pytest.FixtureRequest) -> PretrainedCausalLM:
    return make_net(request.param)


def draw(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]


def test_prompts_of_unequal_length_equal_single_prompts(net):
    prompts = draw(4, 1, 9, 20)
    together = [*generate(net, prompts, 20, Sampling(top_k=1))]  # beyond the context of 32 tokens
    for row, prompt in enumerate(prompts):
        alone = [token for (token,) in generate(net, [prompt], 20, Sampling(top_k=1))]
        assert [step[row] for step in together] == alone


@torch.inference_mode()
def test_texts_that_come_and_go_have_the_logits_of_single_texts(net):
    texts = dict(enumerate(draw(9, 2, 5, 3)))
    next_logits, batches = NextLogits(net), []
    net.register_forward_pre_hook(lambda net, args: batches.append(len(args[0])))
    for keys in [[0], [1, 0], [1, 2, 0], [3, 1, 2], [3, 1], [1]]:
        batches.clear()
        logits = next_logits({key: texts[key] for key in keys})
        assert sum(batches) == len(keys)
        for key, row in zip(keys, logits, strict=True):
            expected = net(torch.tensor([texts[key]]))[0][0, -1]
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)
            texts[key].append(int(row.argmax()))
    batches.clear()
    next_logits({key: texts[key] for key in (1,)})
    assert batches == [1]
    assert next_logits.groups[0][1].padding is None  # columns that no text uses are removed


def test_texts_of_equal_step_share_a_batch():
    net = make_net("llama")
    batches: list[int] = []
    net.register_forward_pre_hook(lambda net, args: batches.append(len(args[0])))
    list(generate(net, draw(4, 1, 9), 3))
    assert batches == [1, 1, 1, 3, 3]


def test_states_of_linear_attention_are_not_joined():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": VOCAB_SIZE}
    net = PretrainedCausalLM(config={"model_type": "mamba", **sizes})
    assert net.join_states is None
