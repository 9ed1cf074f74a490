"""Precision, recall and F1 of entities in sequences of BIO tags."""

from collections.abc import Sequence

from torch import Tensor

from modules.inference.entities import find_entities
from modules.training.metrics import Float32Metric
from preprocessing.special_tokens import IGNORE_INDEX


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
