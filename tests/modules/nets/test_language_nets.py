"""What every language net promises at its door, whatever is inside it."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.nets import GPT, MLPLM, RNNLM, Bigram, RecurrentEncoder
from modules.nets.layers.dropout import Dropout

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


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()  # for nets of this size a second one only waits
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETS[request.param]().eval()


@pytest.fixture
def stirred(net: nn.Module) -> nn.Module:
    """Weights far from where they begin: attention is no plain mean, no table is empty."""
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


def test_logits_are_finite_and_one_for_each_token_of_the_vocabulary(net):
    logits, state = net(draw())
    assert logits.shape == (B, T, V)
    assert logits.isfinite().all()
    assert state is None  # none was asked for


def test_every_parameter_receives_a_gradient(net):
    loss_of(net.train(), draw(length=T + 1)).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_one_row_never_sees_another(stirred):
    tokens, other = draw(), draw()
    other[1:] = draw(seed=2)[1:]
    torch.testing.assert_close(stirred(other)[0][0], stirred(tokens)[0][0])
    assert not torch.allclose(stirred(other)[0][1:], stirred(tokens)[0][1:])


def test_future_tokens_do_not_change_the_past(stirred):
    tokens = draw()
    logits = stirred(tokens)[0]
    for t in range(1, T):
        other = tokens.clone()
        other[:, t:] = (tokens[:, t:] + 1) % V
        torch.testing.assert_close(stirred(other)[0][:, :t], logits[:, :t])


def test_the_order_of_earlier_tokens_matters_to_all_but_the_bigram(stirred):
    tokens = torch.arange(T)[None] % V
    swapped = tokens.clone()
    window = stirred.window if isinstance(stirred, MLPLM) else T
    here = [-min(window, 4), 1 - min(window, 4)]  # two places which the last logits may depend on
    swapped[:, here] = tokens[:, here[::-1]]
    difference = (stirred(swapped)[0] - stirred(tokens)[0])[:, -1].abs().max()
    if type(stirred) is Bigram:
        assert difference == 0
    elif window > 1:
        assert difference > 0.001


def test_a_gpt_of_one_block_knows_the_order_of_what_it_attends_to():
    # Deeper ones can tell the order from the causal mask alone: only one block shows the positions.
    tokens = draw()
    swapped = tokens[:, [1, 0, *range(2, T)]]
    for positions in ("learned", "rotary"):
        torch.manual_seed(0)
        net = gpt(num_layers=1, positions=positions)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)  # attention far from a plain mean
        assert (net(swapped)[0] - net(tokens)[0])[:, -1].abs().max() > 0.01, positions


def test_first_loss_is_that_of_a_uniform_guess(net):
    # Logits of standard deviation s add about s² / 2; s is below 0.5 at the beginning.
    assert loss_of(net, draw(64, T + 1)).item() == pytest.approx(math.log(V), abs=0.125)


@pytest.mark.parametrize("pieces", [[1] * T, [5, 1, 4, 2], [T]], ids=["tokens", "pieces", "whole"])
@torch.inference_mode()
def test_reading_in_pieces_gives_the_logits_of_reading_at_once(stirred, pieces):
    tokens = draw()
    state = stirred.init_state(B)
    logits = []
    for piece in tokens.split(pieces, dim=1):
        step, state = stirred(piece, state)
        logits.append(step)
    torch.testing.assert_close(torch.cat(logits, dim=1), stirred(tokens)[0], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_net_reads_as_far_as_its_context_says(stirred):
    if stirred.context is None:
        long = draw(1, 200)
        state = stirred(long[:, :150], stirred.init_state(1))[1]
        pieces = torch.cat([stirred(long[:, :150])[0], stirred(long[:, 150:], state)[0]], dim=1)
        torch.testing.assert_close(pieces, stirred(long)[0], atol=1e-5, rtol=1e-5)
    else:
        state = stirred(draw(length=stirred.context), stirred.init_state(B))[1]
        for tokens, before in ((draw(length=stirred.context + 1), None), (draw(length=1), state)):
            with pytest.raises(ValueError, match=f"sees {stirred.context} tokens"):
                stirred(tokens, before)


def test_reading_with_bf16_stays_near_fp32_and_in_pieces_near_the_whole(net):
    tokens = draw()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first, state = net(tokens[:, :7], net.init_state(B))
        logits = torch.cat([first, net(tokens[:, 7:], state)[0]], dim=1).float()
    torch.testing.assert_close(logits, net(tokens)[0], atol=0.02, rtol=0.02)


def test_a_net_can_be_built_again_from_its_attributes(stirred):
    arguments = {
        name: getattr(stirred, name) for name in inspect.signature(type(stirred)).parameters
    }
    assert all(isinstance(value, int | float | str | None) for value in arguments.values())
    again = type(stirred)(**arguments).eval()
    again.load_state_dict(stirred.state_dict())
    assert torch.equal(again(draw())[0], stirred(draw())[0])


@pytest.mark.slow
def test_compiled_equals_eager_under_the_same_keys(stirred):
    def run() -> list[Tensor]:
        stirred.zero_grad()
        logits = stirred(draw())[0]
        logits.square().mean().backward()
        return [logits, *(parameter.grad.clone() for parameter in stirred.parameters())]

    keys, eager = list(stirred.state_dict()), run()
    torch.compiler.reset()  # else a ninth version of one forward would silently run eagerly
    stirred.compile(fullgraph=isinstance(stirred, GPT))  # torch's fused cells break a graph
    torch.testing.assert_close(run(), eager, atol=1e-5, rtol=1e-4)
    assert list(stirred.state_dict()) == keys


def test_every_net_overfits_one_batch(net):
    if type(net) is Bigram or getattr(net, "window", T) == 1:  # one token must decide
        tokens = (torch.arange(T + 1) * 5 + torch.arange(B)[:, None]) % V
    else:
        tokens = draw(length=T + 1)
        tokens[:, 0] = torch.arange(B)  # what follows the first token must be known from it
    train(net, [tokens] * 100)
    assert loss_of(net, tokens) < 0.1


def test_on_noise_no_net_goes_below_the_entropy(net):
    train(net, [draw(16, T + 1, seed) for seed in range(30)])
    # Measured on 3072 fresh tokens: the mean is known to about 0.3 / sqrt(3072) = 0.005.
    assert loss_of(net, draw(256, T + 1, seed=99)) > math.log(V) - 0.015


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_gate_equations_equal_torch(layer):
    torch.manual_seed(0)
    name = layer.__name__.lower()
    ours = RecurrentEncoder(5, 7, cell=name, num_layers=2, fused=False)
    fused = RecurrentEncoder(5, 7, cell=name, num_layers=2, fused=True)
    fused.load_state_dict(ours.state_dict())  # one set of names for both
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


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_dropout_drops_its_share_in_every_byte_lane_and_keeps_the_mean(p):
    torch.manual_seed(0)
    n, q = 80_000, round(256 * p) / 256
    y = Dropout(p)(torch.ones(n, 8))  # element i is decided by byte i mod 8 of a random word
    dropped = (y == 0).double().mean(dim=0)
    assert (dropped - q).abs().max() < 4.5 * math.sqrt(q * (1 - q) / n)
    torch.testing.assert_close(y[y > 0].unique(), torch.tensor([1 / (1 - q)]))
    assert y.double().mean().item() == pytest.approx(1, abs=4.5 * math.sqrt(q / (1 - q) / (8 * n)))


def test_dropout_keeps_the_order_of_pictures_in_memory():
    torch.manual_seed(0)
    x = torch.ones(20, 10, 8, 8).contiguous(memory_format=torch.channels_last)
    y = Dropout(0.25)(x)
    assert y.stride() == x.stride()
    assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    halves = Dropout(0.25)(x[:, ::2])  # with gaps between its elements
    assert (halves == 0).double().mean().item() == pytest.approx(0.25, abs=0.025)
    assert halves.shape == (20, 5, 8, 8)


def test_dropout_is_the_identity_when_off_and_reproducible_when_on():
    x = torch.randn(33, 7)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x
    torch.manual_seed(3)
    first, second = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.5)(x), first)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_dropout_passes_the_gradient_where_it_passed_the_value(compiled):
    torch.manual_seed(0)
    first, second = Dropout(0.3), Dropout(0.3)

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        return first(x * 2), second(x * 2)

    x = torch.ones(1000, requires_grad=True)
    a, b = (torch.compile(twice, fullgraph=True) if compiled else twice)(x)
    assert not torch.equal(a, b)  # a compiler may not take the two draws for one
    (a + b).sum().backward()
    torch.testing.assert_close(x.grad, (a + b).detach())


@pytest.mark.parametrize("make", [gpt, rnn, lambda **o: gpt(attention="eager", **o)])
def test_dropout_acts_in_training_only(make):
    torch.manual_seed(0)
    net = make(dropout=0.5)
    assert not torch.equal(net(draw())[0], net(draw())[0])
    net.eval()
    assert torch.equal(net(draw())[0], net(draw())[0])
