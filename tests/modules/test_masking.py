"""Masking of a MaskedLanguageModel: rates, positions, replacements and random numbers."""

import math

import pytest
import torch

from modules.masked_language_model import hash_values, mask_tokens
from preprocessing.special_tokens import IGNORE_INDEX
from tests.support.masked_language_model import MASK, PAD, T, V, texts

ORDINARY = torch.arange(5, V)


def test_rate_of_ordinary_tokens_is_masked() -> None:
    tokens = texts(3000)
    masked = mask_tokens(tokens, torch.arange(3000), ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    counts = chosen.sum(dim=1)
    assert set(counts[1:-1].tolist()) == {4}  # 15 % of 30, rounded to even
    assert counts[-1] == 2  # of 14
    originals = tokens.gather(1, masked.positions)
    assert torch.equal(originals[chosen], masked.targets[chosen])
    assert originals[chosen].min() >= 5
    at_positions = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, masked.positions, chosen)
    assert at_positions.sum() == chosen.sum()  # none is chosen twice
    assert torch.equal(masked.tokens[~at_positions], tokens[~at_positions])


def test_chosen_tokens_are_masked_replaced_or_unchanged_in_80_10_10_percent() -> None:
    tokens = texts(6000)
    masked = mask_tokens(tokens, torch.arange(6000) + 2**40, ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    shown = masked.tokens.gather(1, masked.positions)[chosen]
    n = len(shown)
    masked_share = (shown == MASK).float().mean().item()
    unchanged_share = (shown == masked.targets[chosen]).float().mean().item()
    # A random token equals the original once in 55. Tolerance: five standard deviations.
    for share, expected in ((masked_share, 0.8), (unchanged_share, 0.1 + 0.1 / len(ORDINARY))):
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)
    drawn = shown[(shown != MASK) & (shown != masked.targets[chosen])]
    counts = drawn.bincount(minlength=V)
    assert not counts[:5].any()
    mean = len(drawn) / len(ORDINARY)
    assert (counts[5:] - mean).abs().max() < 5 * math.sqrt(mean)


def test_all_positions_are_masked_equally_often() -> None:
    tokens = texts(6000)[1:-1]
    masked = mask_tokens(tokens, torch.arange(len(tokens)), ORDINARY, MASK, 0.15)
    chosen = masked.targets != IGNORE_INDEX
    counts = masked.positions[chosen].bincount(minlength=T)[1:-1].float()
    expected = len(tokens) * 4 / 30
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    # Neighbors are masked together as often as independent draws: 4 of 30, then 3 of 29.
    at_positions = torch.zeros(len(tokens), T).scatter(1, masked.positions, chosen.float())[:, 1:-1]
    together = (at_positions[:, 1:] * at_positions[:, :-1]).mean().item()
    assert together == pytest.approx(4 / 30 * 3 / 29, rel=0.1)


def test_masking_depends_on_draw_only() -> None:
    tokens, draw = texts(64), torch.arange(64) * 7
    full = mask_tokens(tokens, draw, ORDINARY, MASK, 0.15)
    part = mask_tokens(tokens[10:20], draw[10:20], ORDINARY, MASK, 0.15)
    assert torch.equal(part.tokens, full.tokens[10:20])
    assert torch.equal(part.positions, full.positions[10:20])
    other = mask_tokens(tokens, draw + 1, ORDINARY, MASK, 0.15)
    same = (other.positions.sort(dim=1).values == full.positions.sort(dim=1).values).all(dim=1)
    assert same.float().mean() < 0.1


def test_hash_values_are_uniform_and_streams_differ() -> None:
    draw = torch.tensor([0, 1, 2**32, 2**62 - 1, 5])
    numbers = torch.stack([hash_values(draw, 5000, stream) for stream in range(3)])
    assert numbers.min() >= 0
    assert numbers.max() < 2**32
    assert len(numbers.unique()) > 0.9999 * numbers.numel()
    tenths = (numbers * 10 // 2**32).flatten(0, 1)
    for row in tenths:  # 500 expected per tenth; tolerance: five standard deviations
        assert (row.bincount(minlength=10) - 500).abs().max() < 5 * math.sqrt(500)
    centered = numbers.flatten(0, 1).double() / 2**32 - 0.5
    correlation = torch.corrcoef(centered) - torch.eye(15)
    assert correlation.abs().max() < 5 / math.sqrt(5000)


def test_text_without_ordinary_tokens_has_no_targets() -> None:
    tokens = torch.full((1, T), PAD)
    masked = mask_tokens(tokens, torch.zeros(1, dtype=torch.int64), ORDINARY, MASK, 0.15)
    assert torch.equal(masked.tokens, tokens)
    assert (masked.targets == IGNORE_INDEX).all()
