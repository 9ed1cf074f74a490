"""MaskedWords shows the most probable words for one masked word per text."""

from collections.abc import Callable

import pytest
import torch

from callbacks import MaskedWords
from callbacks.samples.masked_words import bracket_masked, masked_passage, masked_position
from tests.support import ROOT


def test_masked_word_is_a_full_word_near_the_middle() -> None:
    pieces = ["[CLS]", "before", "the", "film", "##ing", "of", "another", "un", "##til", "[SEP]"]
    assert masked_position(pieces) == 6
    assert masked_position(["[CLS]", "a", "[SEP]"]) == 1
    passage = masked_passage(pieces, 6, ["another", "this"], torch.tensor([0.5, 0.25]))
    assert passage.title == "predicted another (50%), this (25%)"
    assert passage.correct
    assert bracket_masked(passage)[3:7] == ["filming", "of", "[another]", "until"]


def test_masked_words_require_a_masked_language_model(
    refused: Callable[..., str],
) -> None:
    with pytest.raises(ValueError, match="at least 1, got 8, 0"):
        MaskedWords(top=0)
    config = ("--config", ROOT / "configs/digits/mlp.yaml")
    error = refused("fit", *config, "--trainer.callbacks=[callbacks.MaskedWords]")
    assert "MaskedWords needs a task with `mask_id`" in error
