"""benchmarks.context_length: every length predicts the same characters with the same weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from benchmarks import context_length
from benchmarks.context_length import LENGTHS, SCALINGS, SHAPE, perplexity, scaled
from modules.nets import GPT

WINDOWS = 2


@pytest.fixture(scope="module")
def net() -> GPT:
    torch.manual_seed(0)
    return GPT(50, context_length.CONTEXT, **SHAPE).eval()


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(
        50, (max(LENGTHS) + context_length.CONTEXT * WINDOWS,), generator=generator
    )


def test_scaling_by_one_changes_nothing(net: GPT, tokens: torch.Tensor) -> None:
    found = [perplexity(scaled(net, LENGTHS[0], kind), tokens, WINDOWS) for kind in SCALINGS]
    assert found == pytest.approx([found[0]] * len(SCALINGS), rel=1e-5)
    longer = [perplexity(scaled(net, 256, kind), tokens, WINDOWS) for kind in SCALINGS]
    assert len({round(value, 4) for value in longer}) == len(SCALINGS)


def test_the_last_characters_of_a_window_are_predicted(net: GPT, tokens: torch.Tensor) -> None:
    end = max(LENGTHS)
    long = scaled(net, 256, "none")
    with torch.inference_mode():
        logits, _ = long(tokens[None, end - 256 : end])
    expected = F.cross_entropy(logits[0, 128:], tokens[end - 127 : end + 1])
    assert perplexity(long, tokens, 1) == pytest.approx(math.exp(expected), rel=1e-6)
