"""Speculative decoding gives the tokens of plain greedy decoding and the same distribution."""

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UserError
from modules.inference.generation import generate
from modules.inference.sampling import Sampling
from modules.inference.speculative import speculate
from modules.nets import GPT, RNNLM, Bigram

V, CONTEXT = 11, 16
SIZES = {"context": CONTEXT, "num_layers": 2, "num_heads": 2, "dim": 16}


def random_net(net: nn.Module, seed: int = 0, std: float = 0.4) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return net.eval()


def similar(net: nn.Module, draft: nn.Module) -> nn.Module:
    """Give the draft weights close to those of the network, so that it is often right."""
    with torch.no_grad():
        for own, other in zip(draft.parameters(), net.parameters(), strict=True):
            own.copy_(other + 0.03 * torch.randn(own.shape, generator=torch.manual_seed(1)))
    return draft.eval()


@pytest.mark.parametrize("proposals", [1, 4, 7])
@pytest.mark.parametrize("kind", ["similar", "other", "small context", "bigram"])
def test_greedy_tokens_equal_plain_decoding(kind, proposals):
    net = random_net(GPT(V, **SIZES))
    draft = {
        "similar": lambda: similar(net, GPT(V, **SIZES)),
        "other": lambda: random_net(GPT(V, **SIZES | {"num_layers": 1}), 5),
        "small context": lambda: random_net(GPT(V, **SIZES | {"context": 6}), 5),
        "bigram": lambda: random_net(Bigram(V)),
    }[kind]()
    for prompt in ([3], [1, 2, 3], list(range(V)) * 2):
        expected = [step[0] for step in generate(net, [prompt], 60, Sampling(top_k=1))]
        assert list(speculate(net, draft, prompt, 60, Sampling(top_k=1), proposals)) == expected


def test_accepted_proposals_save_calls_of_the_network():
    net = random_net(GPT(V, **SIZES | {"context": 64}))
    calls = []
    net.register_forward_pre_hook(lambda net, args: calls.append(args[0].shape[1]))
    tokens = list(speculate(net, net_copy(net), [1], 40, Sampling(top_k=1), 4))
    assert len(tokens) == 40
    assert calls == [5] * 8  # 4 accepted proposals and one more token each time


def net_copy(net: nn.Module) -> nn.Module:
    copy = GPT(V, **SIZES | {"context": 64}).eval()
    copy.load_state_dict(net.state_dict())
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_k": 5}])
def test_samples_have_the_distribution_of_the_network(sampling):
    net, draft = random_net(Bigram(V), 1, 1.0), random_net(Bigram(V), 2, 1.0)
    tokens = list(speculate(net, draft, [0], 8000, Sampling(seed=0, **sampling), 3))
    plain = [step[0] for step in generate(net, [[0]], 8000, Sampling(seed=1, **sampling))]
    assert (pairs(tokens) - pairs(plain)).abs().max() < 0.025  # of a token and the next one


def pairs(tokens: list[int]) -> Tensor:
    """Return how often each token follows each other one, as fractions (V * V,)."""
    counts = torch.tensor(tokens[:-1]) * V + torch.tensor(tokens[1:])
    return counts.bincount(minlength=V * V) / len(counts)


@pytest.mark.parametrize(
    ("net", "draft", "message"),
    [
        (lambda: GPT(V, **SIZES), lambda: Bigram(V + 1), "draft has 12 tokens and the network 11"),
        (lambda: RNNLM(V, dim=8), lambda: Bigram(V), "not possible with RNNLM"),
        (lambda: Bigram(V), lambda: RNNLM(V, dim=8), "not possible with RNNLM"),
    ],
)
def test_unsuitable_networks_are_user_errors(net, draft, message):
    with pytest.raises(UserError, match=message):
        next(speculate(net(), draft(), [1], 3))
