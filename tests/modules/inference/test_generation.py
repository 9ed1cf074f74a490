"""Generation: the cache does not change the tokens, and sampling follows its formulas."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from datamodules.text.tokenizers import character_tokenizer, train_bpe
from engine.errors import UserError
from modules import LanguageModel
from modules.inference.generation import (
    common_prefix,
    generate,
    process_prefix,
    window_start,
)
from modules.inference.sampling import Sampling, sample, shape_logits
from modules.inference.streaming import TextStreamer
from modules.nets import GPT, MLPLM, RNNLM, Bigram

V, CONTEXT = 19, 12
SIZES = {"context": CONTEXT, "num_layers": 2, "num_heads": 2, "dim": 16}
NETS = {
    "bigram": lambda: Bigram(V),
    "mlp": lambda: MLPLM(V, window=4, dim=8, hidden_size=16),
    "rnn": lambda: RNNLM(V, cell="rnn", dim=16),
    "lstm": lambda: RNNLM(V, cell="lstm", dim=16),
    "gru": lambda: RNNLM(V, cell="gru", dim=16, fused=False),
    "gpt": lambda: GPT(V, **SIZES),
    "gpt-eager": lambda: GPT(V, **SIZES, attention="eager"),
    "gpt-modern": lambda: GPT(
        V, **SIZES, positions="rotary", norm="rms", activation="swiglu", num_kv_heads=1
    ),
    "gpt-context-1": lambda: GPT(V, **SIZES | {"context": 1}),
    "gpt-context-odd": lambda: GPT(V, **SIZES | {"context": 5}),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    return with_normal_weights(NETS[request.param]())


def with_normal_weights(net: nn.Module) -> nn.Module:
    """Make the weights so large that each token depends on many previous ones."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net.eval()


def tokens_of(
    net: nn.Module, prompts: Sequence[Sequence[int]], n: int, cached: bool = True, **sampling
) -> list:
    continuations: list[list[int]] = [[] for _ in prompts]
    for step in generate(net, prompts, n, Sampling(**sampling), cached):
        for continuation, token in zip(continuations, step, strict=True):
            continuation += [] if token is None else [token]
    assert all(len(continuation) == n for continuation in continuations)
    return continuations


def test_cache_does_not_change_the_tokens_beyond_the_context(net):
    for sampling in ({"top_k": 1}, {"seed": 3}, {"seed": 3, "temperature": 0.7, "top_p": 0.9}):
        cached = tokens_of(net, [[1, 2, 3]], 3 * CONTEXT, **sampling)
        assert cached == tokens_of(net, [[1, 2, 3]], 3 * CONTEXT, **sampling, cached=False)


def test_greedy_token_is_the_argmax_of_the_network(net):
    prompt, n = [3, 1, 4], CONTEXT - 3 if net.context == CONTEXT else 2
    if net.context == 1:
        return  # only the last token of the prompt is in the context
    (tokens,) = tokens_of(net, [prompt], n, top_k=1)
    text = torch.tensor([prompt + tokens])
    assert net(text[:, :-1])[0][0, 2:].argmax(dim=-1).tolist() == tokens


def test_batched_prompts_of_unequal_length_equal_single_prompts(net):
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(V, (n,), generator=generator).tolist() for n in (4, 1, 21, 40)]
    together = tokens_of(net, prompts, 20, top_k=1)
    assert together == [tokens_of(net, [prompt], 20, top_k=1)[0] for prompt in prompts]


@pytest.mark.parametrize("missing", ["join_states", "reorder_state"])
def test_unequal_prompts_of_a_network_without_joined_states_equal_single_prompts(missing):
    class Plain(GPT):
        def __getattribute__(self, name):
            if name in ("join_states", missing):
                raise AttributeError(name)
            return super().__getattribute__(name)

    net = with_normal_weights(Plain(V, **SIZES))
    prompts = [[1, 2, 3], [4], [5, 6, 7], list(range(15))]
    together = tokens_of(net, prompts, 30, top_k=1)
    assert together == [tokens_of(net, [prompt], 30, top_k=1)[0] for prompt in prompts]


def lengths_of_calls(net: nn.Module) -> list[tuple[int, int]]:
    """Record the shapes (B, T) of the tokens that a network is called with."""
    calls: list[tuple[int, int]] = []
    net.register_forward_pre_hook(lambda net, args: calls.append(tuple(args[0].shape)))
    return calls


def test_prompts_of_unequal_length_are_processed_at_once_and_then_together():
    net = with_normal_weights(GPT(V, **SIZES))
    calls = lengths_of_calls(net)
    tokens_of(net, [[1, 2, 3], [4, 5, 6], [7]], 4)
    assert calls == [(2, 3), (1, 1), (3, 1), (3, 1), (3, 1)]


def test_common_prefix_of_prompts_is_processed_once(net):
    prompts = [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 9, 8]]
    expected = [tokens_of(net, [prompt], 30, top_k=1)[0] for prompt in prompts]
    calls = lengths_of_calls(net)
    assert tokens_of(net, prompts, 30, top_k=1) == expected
    if net.context != 1 and net.context != 5:
        assert calls[:3] == [(1, 2), (1, 2), (1, 1)]
    assert common_prefix([[1, 2, 3], [1, 2, 3, 4]]) == [1, 2]
    assert common_prefix([[1, 2, 3], [1, 2, 3, 4]], context=3) == []


def test_prefix_is_reused_by_later_prompts():
    net = with_normal_weights(GPT(V, **SIZES))
    prefix = process_prefix(net, [1, 2, 3])
    for prompt in ([1, 2, 3, 4, 5], [1, 2, 3], [7, 8], [1, 2, 3, 4] * 8):
        expected = tokens_of(net, [prompt], 20, top_k=1)
        calls = lengths_of_calls(net)
        steps = list(generate(net, [prompt], 20, Sampling(top_k=1), prefix=prefix))
        assert [step[0] for step in steps] == expected[0]
        if prompt == [1, 2, 3, 4, 5]:
            assert calls[0] == (1, 2)


def test_seed_is_independent_of_the_global_generator():
    net = with_normal_weights(GPT(V, **SIZES))
    first = tokens_of(net, [[1], [2]], 30, seed=7)
    torch.rand(13)
    before = torch.get_rng_state()
    assert tokens_of(net, [[1], [2]], 30, seed=7) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert tokens_of(net, [[1], [2]], 30, seed=8) != first
    assert tokens_of(net, [[1]], 30) != tokens_of(net, [[1]], 30)


def test_samples_follow_the_distribution_of_the_network():
    net = with_normal_weights(Bigram(V))
    drawn = torch.tensor(next(generate(net, [[2]] * 5_000, 1, Sampling(seed=0))))
    frequencies = drawn.bincount(minlength=V) / 5_000
    expected = net.table.weight[2].softmax(dim=0).detach()
    assert (frequencies - expected).abs().max() < 4.5 * math.sqrt(0.25 / 5_000)


def test_window_is_between_half_and_full_context():
    for context in (1, 2, 5, 12):
        starts = [window_start(position, context) for position in range(1, 100)]
        assert starts == sorted(starts)
        for position, start in enumerate(starts, start=1):
            assert min(position, max(1, context // 2)) <= position - start <= context
        assert starts[context - 1] == 0
    assert window_start(10**6, None) == 0


# Distribution


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0, 1.0], [0.1, 0.2, 0.3, 0.4, 3.0]])


def test_temperature_divides_logits():
    for temperature in (0.5, 2.0):
        shaped = shape_logits(LOGITS, Sampling(temperature=temperature)).softmax(dim=-1)
        torch.testing.assert_close(shaped, (LOGITS / temperature).softmax(dim=-1))
    assert shape_logits(LOGITS, Sampling()) is LOGITS
    tiny = shape_logits(LOGITS, Sampling(temperature=1e-300)).softmax(dim=-1)
    assert torch.equal(tiny, torch.eye(5)[[0, 4]])


def test_top_k_keeps_the_k_most_probable_tokens():
    shaped = shape_logits(LOGITS, Sampling(top_k=2))
    assert [row.isfinite().nonzero().flatten().tolist() for row in shaped] == [[0, 4], [3, 4]]
    assert torch.equal(shaped[shaped.isfinite()], torch.tensor([2.0, 1.0, 0.4, 3.0]))
    assert shape_logits(LOGITS, Sampling(top_k=99)) is LOGITS


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.6, 0.8, 0.95, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p):
    shaped = shape_logits(LOGITS, Sampling(top_p=top_p))
    for row, original in zip(shaped, LOGITS, strict=True):
        probabilities = original.softmax(dim=0)
        kept, total = set(), 0.0
        # The definition of Holtzman et al.
        for token in probabilities.argsort(descending=True).tolist():
            kept.add(token)
            total += probabilities[token].item()
            if total >= top_p:
                break
        assert set(row.isfinite().nonzero().flatten().tolist()) == kept


def test_min_p_keeps_tokens_of_a_fraction_of_the_highest_probability():
    for min_p in (0.05, 0.2, 0.5, 1.0):
        probabilities = LOGITS.softmax(dim=-1)
        expected = probabilities >= min_p * probabilities.amax(dim=-1, keepdim=True)
        assert torch.equal(shape_logits(LOGITS, Sampling(min_p=min_p)).isfinite(), expected)
    assert shape_logits(LOGITS, Sampling(min_p=0.0)) is LOGITS


def test_logit_bias_is_added_to_the_logits_of_its_tokens():
    shaped = shape_logits(LOGITS, Sampling(logit_bias={1: 2.0, 4: -100.0}))
    torch.testing.assert_close(shaped, LOGITS + torch.tensor([0.0, 2.0, 0.0, 0.0, -100.0]))
    with pytest.raises(UserError, match="vocabulary has 5 tokens, got 5"):
        shape_logits(LOGITS, Sampling(logit_bias={5: 1.0}))


def test_greedy_decoding_takes_the_first_of_equally_probable_tokens():
    net = Bigram(V)  # its logits are all 0
    assert tokens_of(net, [[3]], 8, top_k=1) == [[0] * 8]
    assert tokens_of(net, [[3]], 8, top_k=1, logit_bias={7: 1.0}) == [[7] * 8]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    seen = torch.tensor([[True, True, False, True, False], [False] * 5])
    shaped = shape_logits(LOGITS, Sampling(repetition_penalty=2.0), seen)
    assert shaped.tolist() == [[1.0, -2.0, 0.5, 0.0, 1.0], LOGITS[1].tolist()]


@pytest.mark.parametrize("cached", [True, False])
def test_repetition_penalty_includes_tokens_before_the_window(cached):
    net = with_normal_weights(GPT(V, **SIZES, tie_embeddings=False))
    with torch.no_grad():
        net.last_norm.weight.zero_()
        net.last_norm.bias.fill_(1)
        net.head.weight.fill_(1)
        net.head.weight[:, 0] += torch.arange(V)  # positive, and increasing with the token
    (tokens,) = tokens_of(net, [[5, 3]], V - 2, top_k=1, repetition_penalty=1e9, cached=cached)
    assert tokens == [token for token in reversed(range(V)) if token not in (5, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompt is empty"),
        ({"prompts": [[1], []]}, "prompt is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_invalid_prompts_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        next(generate(**{"net": Bigram(V), "prompts": [[1]], "max_new_tokens": 3} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": math.nan}, "temperature must be above 0"),
        ({"temperature": math.inf}, "temperature must be above 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"min_p": 1.1}, "min_p must be in"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias takes numbers of tokens"),
        ({"logit_bias": {1: math.inf}}, "logit_bias takes numbers of tokens"),
        ({"seed": -1}, "seed must be in"),
    ],
)
def test_invalid_sampling_parameters_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        Sampling(**options)


@pytest.mark.parametrize("part", ["", "blocks.0"])  # a sharded net is compiled block by block
def test_compiled_network_is_not_recompiled_for_each_length(part):
    net = with_normal_weights(GPT(V, **SIZES))
    expected = tokens_of(net, [[1]], 20, seed=0)
    compiled = []
    net.get_submodule(part).compile(
        backend=lambda graph, inputs: compiled.append(1) or graph.forward
    )
    assert tokens_of(net, [[1]], 20, seed=0) == expected
    assert compiled == []


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_sample_from_the_same_logits(dtype, cached):
    net, half = with_normal_weights(GPT(V, **SIZES)), with_normal_weights(GPT(V, **SIZES)).to(dtype)
    recorded = []
    half.register_forward_hook(lambda *call: recorded.append(call[-1][0][0, -1].float()))
    text = [1, 2, 3, *tokens_of(half, [[1, 2, 3]], 4 * CONTEXT, seed=0, cached=cached)[0]]
    for position, logits in enumerate(recorded, start=3):
        window = torch.tensor([text[window_start(position, CONTEXT) : position]])
        with torch.no_grad():
            expected = net(window)[0][0, -1]
        assert (logits - expected).norm() < 0.05 * expected.norm()


# Streaming


NASTY = "héllo 漢字 😀 e\u0301 \r\n\t don't 😀😀"


def language_model(kind: str) -> LanguageModel:
    tokenizer = character_tokenizer(NASTY) if kind == "characters" else train_bpe([NASTY], 260)
    net = with_normal_weights(GPT(tokenizer.get_vocab_size(), **SIZES))
    return LanguageModel(net, tokenizer=tokenizer.to_str())


def replay(model: LanguageModel, text: str, monkeypatch) -> None:
    """Make the model sample the tokens of this text."""
    tokens = model.encode(text)

    def fake(net, prompts, max_new_tokens, *options, **more):
        yield from ([token] * len(prompts) for token in tokens[:max_new_tokens])

    monkeypatch.setattr("modules.language_model.generate", fake)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_streamed_pieces_are_full_characters_and_join_to_the_text(kind, monkeypatch):
    model = language_model(kind)
    length = len(model.encode(NASTY))
    replay(model, NASTY, monkeypatch)
    pieces = [piece for (piece,) in model.stream(["h"], max_new_tokens=length)]
    assert "".join(pieces) == NASTY
    assert len(pieces) == length
    assert not any("\ufffd" in piece for piece in pieces)
    assert kind == "characters" or "" in pieces  # incomplete characters are held back


def test_streamed_pieces_of_random_bytes_join_to_the_decoded_text():
    model = language_model("bpe")
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(model.net.vocab_size, (40,), generator=generator).tolist()
        pieces = TextStreamer(model.decode)
        text = "".join(pieces.add(token, last=n == 39) for n, token in enumerate(tokens))
        assert text == model.decode(tokens)


@pytest.mark.parametrize("kind", ["characters", "bpe"])
@pytest.mark.parametrize("stop", ["字", "😀 e", "o 漢", "\r\n", "héllo", "t 😀😀", "😀😀"])
def test_stop_string_ends_the_text_and_is_not_returned(kind, stop, monkeypatch):
    model = language_model(kind)
    replay(model, NASTY, monkeypatch)
    expected = NASTY[: NASTY.index(stop)]
    received = ""
    for (piece,) in model.stream(["h"], max_new_tokens=999, stop=stop):
        received += piece
        assert expected.startswith(received)
    assert received == expected


def test_prefix_of_the_stop_string_is_returned(monkeypatch):
    model = language_model("characters")
    replay(model, NASTY, monkeypatch)
    length = len(NASTY)
    for stop in ("don't 😀h", "😀😀😀", "hh"):
        assert model.generate("h", length, stop=stop) == NASTY


def test_each_prompt_of_a_batch_ends_independently():
    model = language_model("characters")
    prompts = ["h", "漢字 ", "don't"]
    alone = [model.generate(prompt, 40, top_k=1, stop="e") for prompt in prompts]
    assert model.generate(prompts, 40, top_k=1, stop="e") == alone
    assert all("e" not in text for text in alone)


def test_generation_restores_modes_and_random_state():
    model = language_model("bpe").train()
    model.net.last_norm.eval()  # a frozen layer
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    first = model.generate("h", 10, seed=0)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert model.generate("h", 10, seed=0) == first
    with pytest.raises(UserError):
        model.generate("", 10)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("size", [(1, 65), (3, 50_257)])
def test_sample_equals_multinomial(size: tuple[int, int]) -> None:
    probabilities = torch.randn(size, generator=torch.manual_seed(0)).mul(2).softmax(dim=-1)
    probabilities[:, ::3] = 0
    for seed in range(50):
        expected = torch.multinomial(
            probabilities, 1, generator=torch.Generator().manual_seed(seed)
        )
        drawn = sample(probabilities, torch.Generator().manual_seed(seed))
        assert drawn == expected.flatten().tolist()


def test_sample_frequencies_match_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0]).expand(5_000, 4)
    drawn = torch.tensor(sample(probabilities, torch.Generator().manual_seed(0)))
    shares = drawn.bincount(minlength=4) / len(drawn)
    torch.testing.assert_close(shares, probabilities[0], atol=0.015, rtol=0)
    assert shares[3] == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_non_finite_logits_are_a_user_error(broken: float) -> None:
    net = GPT(5, context=8, num_layers=1, num_heads=1, dim=8).eval()
    with torch.no_grad():
        net.token_embedding.weight[3, 0] = broken
    with pytest.raises(UserError, match="after diverged training"):
        list(generate(net, [[3]], 2))
