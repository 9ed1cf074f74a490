"""Beam search equals greedy decoding with one beam and exhaustive search with all of them."""

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.errors import UserError
from modules.inference.beam_search import beam_search, length_penalty
from modules.nets import Seq2Seq, Transformer
from tests.support.translation_nets import NETS, batch_of

BEGIN, END = 2, 3
V, LONGEST = 5, 4
TINY: dict[str, Callable[[], nn.Module]] = {
    "Seq2Seq": lambda: Seq2Seq(20, V, dim=6, hidden_size=6, attention="luong"),
    "Transformer": lambda: Transformer(20, V, context=16, dim=8, num_heads=2, num_layers=1),
}


def with_normal_weights(net: nn.Module) -> nn.Module:
    """Make the weights so large that tokens differ clearly in probability."""
    torch.manual_seed(4)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.6)
    return net.eval()


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> nn.Module:
    return with_normal_weights(TINY[request.param]())


@pytest.fixture(params=["Seq2Seq-none", "Seq2Seq-bahdanau", "Seq2Seq-luong", "Transformer-post"])
def net(request: pytest.FixtureRequest) -> nn.Module:
    return with_normal_weights(NETS[request.param]())


def score_of(net: nn.Module, source: dict[str, Tensor], text: list[int], alpha: float) -> float:
    """Return the score of a sentence, with or without END, from one forward pass."""
    inputs = source | {"decoder_input_ids": torch.tensor([[BEGIN, *text[:-1]]])}
    log_probs = net(inputs)[0].log_softmax(dim=-1)
    total = sum(log_probs[position, token].item() for position, token in enumerate(text))
    return total / ((5 + len(text)) / 6) ** alpha


def exhaustive(net: nn.Module, source: dict[str, Tensor], alpha: float) -> tuple[list[int], float]:
    """Return the best sentence of at most LONGEST tokens; only the longest may lack END."""
    tokens = [token for token in range(V) if token != END]
    texts = [
        [*prefix, END]
        for length in range(LONGEST)
        for prefix in itertools.product(tokens, repeat=length)
    ]
    texts += [list(text) for text in itertools.product(tokens, repeat=LONGEST)]
    best = max(texts, key=lambda text: score_of(net, source, text, alpha))
    return best, score_of(net, source, best, alpha)


def single(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    not_padding = batch["attention_mask"][row]
    return {
        name: batch[name][row : row + 1, not_padding] for name in ("input_ids", "attention_mask")
    }


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@torch.no_grad()
def test_wide_beam_finds_the_best_translation(tiny: nn.Module, alpha: float) -> None:
    batch = batch_of([3, 5, 1])
    translations, scores = beam_search(
        tiny, batch, BEGIN, END, beam_size=V**LONGEST, penalty=alpha, max_length=LONGEST
    )
    for row in range(3):
        best, score = exhaustive(tiny, single(batch, row), alpha)
        assert translations[row] == [token for token in best if token != END]
        assert scores[row].item() == pytest.approx(score, abs=1e-4)


@torch.no_grad()
def test_beam_size_one_is_greedy(net: nn.Module) -> None:
    batch = batch_of([3, 7, 1, 5, 6, 2])
    translations, _ = beam_search(net, batch, BEGIN, END, beam_size=1, penalty=1.0, max_length=12)
    for row in range(6):
        text: list[int] = []
        while len(text) < 12:
            inputs = single(batch, row) | {"decoder_input_ids": torch.tensor([[BEGIN, *text]])}
            token = int(net(inputs)[0, -1].argmax())
            if token == END:
                break
            text.append(token)
        assert translations[row] == text


def test_empty_batch_gives_no_translations(net: nn.Module) -> None:
    empty = torch.zeros(0, 3, dtype=torch.int64)
    translations, scores = beam_search(net, {"input_ids": empty, "attention_mask": empty}, 1, 2)
    assert translations == []
    assert scores.shape == (0,)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_cache_does_not_change_the_tokens(net: nn.Module, beam_size: int) -> None:
    batch = batch_of([3, 7, 1, 5, 6, 2])
    results = [
        beam_search(net, batch, BEGIN, END, beam_size, penalty=3.0, cached=cached)
        for cached in (True, False)
    ]
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-4, rtol=1e-4)
    assert any(results[0][0])


def test_translation_does_not_depend_on_the_batch(net: nn.Module) -> None:
    batch = batch_of([3, 7, 1, 5, 6, 2])
    together, scores = beam_search(net, batch, BEGIN, END, beam_size=3)
    for row in range(6):
        alone, score = beam_search(net, single(batch, row), BEGIN, END, beam_size=3)
        assert alone == [together[row]]
        torch.testing.assert_close(score[0], scores[row], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_score_is_log_likelihood_divided_by_the_penalty(net: nn.Module) -> None:
    batch = batch_of([3, 7, 1])
    translations, scores = beam_search(
        net, batch, BEGIN, END, beam_size=4, penalty=0.8, max_length=9
    )
    for row, text in enumerate(translations):
        tokens = [*text, END] if len(text) < 9 else text
        assert scores[row].item() == pytest.approx(
            score_of(net, single(batch, row), tokens, 0.8), abs=1e-4
        )


def test_length_penalty_favors_longer_sentences(net: nn.Module) -> None:
    batch = batch_of([3, 7, 1, 5, 6, 2])
    short, long = (
        sum(len(text) for text in beam_search(net, batch, BEGIN, END, 8, penalty=alpha)[0])
        for alpha in (0.0, 3.0)
    )
    assert long >= short
    # The other networks already end late.
    must_differ = isinstance(net, Seq2Seq) and net.attention == "none"
    assert long > short or not must_differ


def test_length_penalty_equals_the_paper() -> None:
    assert length_penalty(1, 0.6).item() == pytest.approx(1.0)
    assert length_penalty(7, 0.6).item() == pytest.approx(2**0.6)
    assert length_penalty(torch.tensor([4, 13]), 0.0).tolist() == [1.0, 1.0]


def test_excluded_tokens_are_never_generated(net: nn.Module) -> None:
    batch = batch_of([3, 7, 1, 5])
    free, _ = beam_search(net, batch, BEGIN, END, beam_size=3, exclude=[END])
    limits = [min(limit, net.context or 99) for limit in (16, 24, 12, 20)]
    assert [len(text) for text in free] == limits  # without END
    common = Counter(itertools.chain(*free)).most_common(1)[0][0]
    without_common, _ = beam_search(net, batch, BEGIN, END, beam_size=3, exclude=[END, common])
    assert all(text and common not in text for text in without_common)


def test_length_is_limited_by_context_and_source() -> None:
    net = with_normal_weights(NETS["Transformer-post"]())
    nn.init.zeros_(net.target_embedding.weight)
    net.target_embedding.weight.data[7] = 1.0
    nn.init.ones_(net.decoder[-1].norm_3.bias)  # always token 7, never END
    translations, _ = beam_search(net, batch_of([1, 2, 12]), BEGIN, END, beam_size=2)
    assert [len(text) for text in translations] == [12, 14, 16]


@pytest.mark.parametrize(
    "wrong", [{"beam_size": 0}, {"penalty": -0.1}, {"penalty": float("nan")}, {"max_length": 0}]
)
def test_invalid_arguments_are_errors(tiny: nn.Module, wrong: dict) -> None:
    with pytest.raises(UserError, match=r"must be (at least 1|in)"):
        beam_search(tiny, batch_of([2]), BEGIN, END, **wrong)
