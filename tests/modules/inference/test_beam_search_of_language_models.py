"""Beam search of language models finds what that of transformers finds with the same weights."""

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from engine.errors import UserError
from modules.inference.beam_search import continue_with_beams
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.nets import GPT, MLPLM, RNNLM, Bigram
from modules.nets.huggingface.gpt import save_gpt

V = 13


def random_net(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net.eval()


@pytest.mark.parametrize(("end_tokens", "texts_end"), [([3, 5], False), ([3, 5, 8], True)])
def test_tokens_equal_those_of_transformers(end_tokens, texts_end, tmp_path):
    net = random_net(GPT(V, context=32, num_layers=2, num_heads=2, dim=16))
    save_gpt(net, tmp_path)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ended = 0
    for number in range(12):
        prompt = torch.randint(V, (1 + number % 4,), generator=torch.manual_seed(number))
        expected = theirs.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt[None]),
            num_beams=4,
            max_new_tokens=12,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=True,
            eos_token_id=end_tokens,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        ends = [place for place, token in enumerate(expected) if token in end_tokens]
        ended += len(ends) > 0
        expected = expected[: ends[0]] if ends else expected
        assert continue_with_beams(net, prompt.tolist(), 12, end_tokens, 4) == expected
    assert (ended > 0) == texts_end


@pytest.mark.parametrize(
    "net",
    [
        GPT(V, context=32, num_layers=1, num_heads=2, dim=16),
        RNNLM(V, dim=8),
        MLPLM(V, window=3, dim=8, hidden_size=8),
        Bigram(V),
    ],
    ids=lambda net: type(net).__name__,
)
def test_one_beam_is_greedy_decoding(net):
    random_net(net)
    expected = [step[0] for step in generate(net, [[1, 2]], 10, Sampling(top_k=1))]
    assert continue_with_beams(net, [1, 2], 10, beam_size=1) == expected


def test_text_that_exceeds_the_context_is_a_user_error():
    net = GPT(V, context=8, num_layers=1, num_heads=2, dim=16)
    with pytest.raises(UserError, match="the prompt has 5, and max_new_tokens is 9"):
        continue_with_beams(net, [1] * 5, 9)
