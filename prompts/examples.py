"""Choose the labeled examples of a few-shot prompt."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.errors import UserError


class Example(NamedTuple):
    """A text with the word of its label."""

    text: str
    label: str


# From a text and a number to the examples of its prompt, in their order.
Selector = Callable[[str, int], list[Example]]


def balanced(pool: Sequence[Example], seed: int = 0) -> Selector:
    """Return a selector of the same random examples for every text, of all labels in turn.

    Args:
        pool: Labeled texts.
        seed: Seed of the choice.
    """
    by_label: dict[str, list[Example]] = {}
    for example in random.Random(seed).sample(list(pool), len(pool)):
        by_label.setdefault(example.label, []).append(example)
    groups = [by_label[label] for label in sorted(by_label)]

    def select(text: str, count: int) -> list[Example]:
        if count > sum(map(len, groups)):
            raise UserError(f"there are only {sum(map(len, groups))} examples, not {count}.")
        in_turn = (group[n] for n in range(count) for group in groups if n < len(group))
        return [example for example, _ in zip(in_turn, range(count), strict=False)]

    return select


def similar(pool: Sequence[Example], embed: Callable[[Sequence[str]], np.ndarray]) -> Selector:
    """Return a selector of the examples that are most similar to the text, the nearest one last.

    Liu et al. 2022, "What makes good in-context examples for GPT-3?".

    Args:
        pool: Labeled texts.
        embed: From N texts to their vectors (N, D) of length 1.
    """
    vectors = embed([example.text for example in pool])  # (N, D)

    def select(text: str, count: int) -> list[Example]:
        if count > len(pool):
            raise UserError(f"there are only {len(pool)} examples, not {count}.")
        nearest = np.argsort(vectors @ embed([text])[0])[len(pool) - count :]
        return [pool[row] for row in nearest]

    return select
