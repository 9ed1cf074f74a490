"""Contracts of every language model: shapes, causality, states, gradients, overfitting."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import GPT, MLPLM, RNNLM, Bigram, RecurrentEncoder

V, B, T = 23, 4, 12


def gpt(**options) -> GPT:
    sizes = {"context": T, "num_layers": 2, "num_heads": 4, "dim": 32}
    return GPT(V, **sizes | options)


def rnn(**options) -> RNNLM:
    return RNNLM(V, **{"dim": 32, "num_layers": 2} | options)


NETS: dict[str, Callable[[], nn.Module]] = {
    "bigram": lambda: Bigram(V),
    "mlp": lambda: MLPLM(V, window=4, dim=16, hidden_size=64),
    "mlp-direct": lambda: MLPLM(V, window=4, dim=16, hidden_size=64, direct=True),
    "mlp-window-1": lambda: MLPLM(V, window=1, dim=16, hidden_size=64),
    "rnn": lambda: rnn(cell="rnn"),
    "lstm": lambda: rnn(cell="lstm"),
    "gru": lambda: rnn(cell="gru"),
    "rnn-eager": lambda: rnn(cell="rnn", fused=False),
    "lstm-eager": lambda: rnn(cell="lstm", fused=False),
    "gru-eager": lambda: rnn(cell="gru", fused=False),
    "lstm-tied": lambda: rnn(cell="lstm", tie_embeddings=True),
    "gpt": gpt,
    "gpt-eager": lambda: gpt(attention="eager"),
    "gpt-sdpa": lambda: gpt(attention="sdpa"),
    "gpt-untied-no-bias": lambda: gpt(tie_embeddings=False, bias=False),
    "gpt-rotary": lambda: gpt(positions="rotary"),
    "gpt-rms-swiglu": lambda: gpt(norm="rms", activation="swiglu"),
    "gpt-grouped": lambda: gpt(num_kv_heads=2),
    "gpt-modern": lambda: gpt(
        positions="rotary", norm="rms", activation="swiglu", num_kv_heads=1, bias=False
    ),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETS[request.param]().eval()


@pytest.fixture
def perturbed(net: nn.Module) -> nn.Module:
    """Weights far from their initial values, so that attention is not uniform and no table zero."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return net


def draw(rows: int = B, length: int = T, seed: int = 1) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def loss_of(net: nn.Module, tokens: Tensor) -> Tensor:
    logits = net(tokens[:, :-1])[0]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def train(net: nn.Module, batches: list[Tensor]) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1 if type(net) is Bigram else 0.01)
    for tokens in batches:
        optimizer.zero_grad()
        loss_of(net.train(), tokens).backward()
        optimizer.step()
    net.eval()


def test_logits_have_the_vocabulary_size_and_are_finite(net):
    logits, state = net(draw())
    assert logits.shape == (B, T, V)
    assert logits.isfinite().all()
    assert state is None


def test_every_parameter_receives_a_gradient(net):
    loss_of(net.train(), draw(length=T + 1)).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_rows_of_a_batch_are_independent(perturbed):
    tokens, other = draw(), draw()
    other[1:] = draw(seed=2)[1:]
    torch.testing.assert_close(perturbed(other)[0][0], perturbed(tokens)[0][0])
    assert not torch.allclose(perturbed(other)[0][1:], perturbed(tokens)[0][1:])


def test_future_tokens_do_not_change_the_past(perturbed):
    tokens = draw()
    logits = perturbed(tokens)[0]
    for t in range(1, T):
        other = tokens.clone()
        other[:, t:] = (tokens[:, t:] + 1) % V
        torch.testing.assert_close(perturbed(other)[0][:, :t], logits[:, :t])


def test_logits_depend_on_the_order_of_earlier_tokens_except_in_the_bigram(perturbed):
    tokens = torch.arange(T)[None] % V
    swapped = tokens.clone()
    window = perturbed.window if isinstance(perturbed, MLPLM) else T
    pair = [-min(window, 4), 1 - min(window, 4)]  # two positions that affect the last logits
    swapped[:, pair] = tokens[:, pair[::-1]]
    difference = (perturbed(swapped)[0] - perturbed(tokens)[0])[:, -1].abs().max()
    if type(perturbed) is Bigram:
        assert difference == 0
    elif window > 1:
        assert difference > 0.001


def test_one_block_of_gpt_depends_on_token_order():
    # Several blocks could infer the order from the causal mask alone.
    tokens = draw()
    swapped = tokens[:, [1, 0, *range(2, T)]]
    for positions in ("learned", "rotary"):
        torch.manual_seed(0)
        net = gpt(num_layers=1, positions=positions)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)  # attention far from uniform
        assert (net(swapped)[0] - net(tokens)[0])[:, -1].abs().max() > 0.01, positions


def test_first_loss_is_close_to_ln_vocab_size(net):
    # Logits of standard deviation s add about s² / 2; initially s is below 0.5.
    assert loss_of(net, draw(64, T + 1)).item() == pytest.approx(math.log(V), abs=0.125)


@pytest.mark.parametrize("lengths", [[1] * T, [5, 1, 4, 2]], ids=["tokens", "parts"])
@torch.inference_mode()
def test_processing_in_parts_gives_the_same_logits(perturbed, lengths):
    tokens = draw()
    state = perturbed.init_state(B)
    logits = []
    for part in tokens.split(lengths, dim=1):
        part_logits, state = perturbed(part, state)
        logits.append(part_logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), perturbed(tokens)[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_context_is_the_maximum_length(perturbed):
    if perturbed.context is None:
        long = draw(1, 200)
        state = perturbed(long[:, :150], perturbed.init_state(1))[1]
        logits = torch.cat([perturbed(long[:, :150])[0], perturbed(long[:, 150:], state)[0]], dim=1)
        torch.testing.assert_close(logits, perturbed(long)[0], atol=1e-5, rtol=1e-5)
    else:
        state = perturbed(draw(length=perturbed.context), perturbed.init_state(B))[1]
        for tokens, before in ((draw(length=perturbed.context + 1), None), (draw(length=1), state)):
            with pytest.raises(ValueError, match=f"is {perturbed.context} tokens"):
                perturbed(tokens, before)


def test_bf16_in_parts_is_close_to_fp32_at_once(net):
    tokens = draw()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first, state = net(tokens[:, :7], net.init_state(B))
        logits = torch.cat([first, net(tokens[:, 7:], state)[0]], dim=1).float()
    torch.testing.assert_close(logits, net(tokens)[0], atol=0.02, rtol=0.02)


def test_net_can_be_rebuilt_from_its_attributes(perturbed):
    arguments = {
        name: getattr(perturbed, name) for name in inspect.signature(type(perturbed)).parameters
    }
    assert all(isinstance(value, int | float | str | None) for value in arguments.values())
    again = type(perturbed)(**arguments).eval()
    again.load_state_dict(perturbed.state_dict())
    assert torch.equal(again(draw())[0], perturbed(draw())[0])


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mlp", "lstm", "gpt", "gpt-modern"], indirect=True)
def test_compiled_equals_eager_under_the_same_keys(perturbed):
    def run() -> list[Tensor]:
        perturbed.zero_grad()
        logits = perturbed(draw())[0]
        logits.square().mean().backward()
        return [logits, *(parameter.grad.clone() for parameter in perturbed.parameters())]

    keys, eager = list(perturbed.state_dict()), run()
    torch.compiler.reset()  # beyond torch's limit of recompilations it would run eagerly
    perturbed.compile(
        fullgraph=isinstance(perturbed, GPT)
    )  # torch does not trace its recurrent layers
    torch.testing.assert_close(run(), eager, atol=1e-5, rtol=1e-4)
    assert list(perturbed.state_dict()) == keys


def test_every_net_overfits_one_batch(net):
    if type(net) is Bigram or getattr(net, "window", T) == 1:  # predictable from one token
        tokens = (torch.arange(T + 1) * 5 + torch.arange(B)[:, None]) % V
    else:
        tokens = draw(length=T + 1)
        tokens[:, 0] = torch.arange(B)  # rows differ in their first token
    train(net, [tokens] * 100)
    assert loss_of(net, tokens) < 0.1


def test_loss_on_noise_is_not_below_the_entropy(net):
    train(net, [draw(16, T + 1, seed) for seed in range(30)])
    # The standard error over 3072 new tokens is about 0.3 / sqrt(3072) = 0.005.
    assert loss_of(net, draw(256, T + 1, seed=99)) > math.log(V) - 0.015


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_gate_equations_equal_torch(layer):
    torch.manual_seed(0)
    name = layer.__name__.lower()
    ours = RecurrentEncoder(5, 7, cell=name, num_layers=2, fused=False)
    fused = RecurrentEncoder(5, 7, cell=name, num_layers=2, fused=True)
    fused.load_state_dict(ours.state_dict())  # both have the same names
    theirs = layer(5, 7, num_layers=2, batch_first=True)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    fused.load_state_dict(ours.state_dict())
    theirs.load_state_dict(
        {
            f"{kind.removesuffix('_l0')}_l{number}": tensor
            for number, one in enumerate(ours.layers)
            for kind, tensor in one.state_dict().items()
        }
    )
    x = torch.randn(3, 6, 5)
    state = tuple(torch.randn(2, 3, 7) for _ in ours.init_state(3))
    expected, after = theirs(x, state if layer is nn.LSTM else state[0])
    after = after if layer is nn.LSTM else (after,)
    for encoder in (ours, fused):
        outputs, our_after = encoder(x, state)
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(our_after, after)
        encoder(x)[0].square().sum().backward()
    for (n, p), q in zip(ours.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=lambda m, n=n: f"gradient of {n}: {m}")


@pytest.mark.parametrize("make", [gpt, rnn, lambda **o: gpt(attention="eager", **o)])
def test_dropout_acts_in_training_only(make):
    torch.manual_seed(0)
    net = make(dropout=0.5)
    assert not torch.equal(net(draw())[0], net(draw())[0])
    net.eval()
    assert torch.equal(net(draw())[0], net(draw())[0])
