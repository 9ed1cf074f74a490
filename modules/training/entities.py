"""Entities in sequences of BIO tags, and their precision, recall and F1."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from modules.training.metrics import Float32Metric
from preprocessing.special_tokens import IGNORE_INDEX


class Span(NamedTuple):
    """An entity as a range of words."""

    kind: str
    start: int  # first word
    end: int  # after the last word


def find_entities(tags: Sequence[str]) -> Iterator[Span]:
    """Yield the entities of BIO tags, by the rules of CoNLL's conlleval.

    An entity starts at `B-<kind>`, and at `I-<kind>` if no entity of that kind precedes. It ends
    before the next tag that does not continue it.
    """
    kind, start = "", 0  # of the open entity; "" where none is open
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, own = tag.partition("-")
        if kind and (prefix != "I" or own != kind):
            yield Span(kind, start, position)
            kind = ""
        if not kind and prefix != "O":
            kind, start = own, position


class EntityScores(Float32Metric):
    """Precision, recall and F1 of entities; one is correct if its words and its kind are.

    Micro-averaged over all entities, as CoNLL's conlleval (Tjong Kim Sang & De Meulder 2003). A
    quotient with denominator zero is 0.

    Args:
        class_names: The tags in the order of their indices.
    """

    correct: Tensor
    predicted: Tensor
    actual: Tensor

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__("correct", "predicted", "actual")
        self.class_names = list(class_names)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Add predicted and true tags, (B, T); targets with IGNORE_INDEX are no words."""
        for predicted, target in zip(predictions.tolist(), targets.tolist(), strict=True):
            words = [n for n, index in enumerate(target) if index != IGNORE_INDEX]
            found, expected = (
                set(find_entities([self.class_names[row[n]] for n in words]))
                for row in (predicted, target)
            )
            self.correct += len(found & expected)
            self.predicted += len(found)
            self.actual += len(expected)

    def compute(self) -> dict[str, Tensor]:
        both = self.predicted + self.actual
        return {
            "precision": self.correct / self.predicted.clamp(min=1),
            "recall": self.correct / self.actual.clamp(min=1),
            "f1": 2 * self.correct / both.clamp(min=1),
        }
