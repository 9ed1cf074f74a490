"""Selectors choose the examples of few-shot prompts."""

import numpy as np
import pytest

from engine.errors import UserError
from prompts.examples import Example, balanced, similar

POOL = [Example(f"text {n}", "yes" if n % 4 else "no") for n in range(8)]  # 6 yes, 2 no


def test_balanced_examples_have_all_labels_in_turn_and_are_the_same_for_all_texts() -> None:
    select = balanced(POOL, seed=1)
    chosen = select("a", 4)
    assert [example.label for example in chosen] == ["no", "yes", "no", "yes"]
    assert select("b", 4) == chosen
    assert balanced(POOL, seed=2)("a", 4) != chosen
    assert [example.label for example in select("a", 8)].count("yes") == 6
    with pytest.raises(UserError, match="only 8 examples, not 9"):
        select("a", 9)


def test_similar_examples_are_the_nearest_and_the_nearest_is_last() -> None:
    def embed(texts):
        angles = np.array([float(text.split()[-1]) for text in texts]) / 10
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    chosen = similar(POOL, embed)("query 5.2", 3)
    assert [example.text for example in chosen] == ["text 4", "text 6", "text 5"]
    assert similar(POOL, embed)("query 1", 0) == []
    with pytest.raises(UserError, match="only 8 examples"):
        similar(POOL, embed)("query 1", 9)
