"""Methods for raw samples that tasks have in common, whether torch or onnxruntime runs them."""

import heapq
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.errors import UserError
from modules.inference.entities import Entity, find_entities
from modules.inference.occlusion import Explanation, explain
from preprocessing.texts import split_words

if TYPE_CHECKING:  # onnxruntime runs tasks without torch
    from torch import Tensor

    from modules.inference.raw_inputs import RawSample


class ClassifiesSamples:
    """A task with `class_names` and `probabilities(samples) -> (B, num_classes)`."""

    class_names: list[str]
    probabilities: Callable[[Any], Any]

    def classify(
        self, samples: "RawSample | Sequence[RawSample] | Tensor", top_k: int | None = None
    ) -> list[Any]:
        """Classify raw images or texts.

        Args:
            samples: Image paths, PIL images or tensors (C, height, width), uint8 in 0…255 or float
                in 0…1; for a text model texts; one of them or several. For a model of pairs of
                texts a list of pairs.
            top_k: Number of classes to return, up to all; by default only the most probable one.

        Returns:
            For each sample `(class name, probability)`; with `top_k` a list of such pairs, the most
            probable first.

        Raises:
            UserError: If a sample cannot be read, is of the wrong kind, or the task was trained
                without `preprocessing` or `tokenizer`.
        """
        if top_k is not None and top_k < 1:
            raise UserError(f"classify: top_k must be at least 1, got {top_k}.")
        count = min(top_k or 1, len(self.class_names))
        ranked = [
            [
                (self.class_names[index], row[index])
                for index in heapq.nlargest(count, range(len(row)), key=row.__getitem__)
            ]
            for row in self.probabilities(samples).tolist()
        ]
        return ranked if top_k else [pairs[0] for pairs in ranked]

    def explain(self, texts: str | Sequence[str]) -> list[Explanation]:
        """Return the most probable class of raw texts and how much each word contributes to it.

        Args:
            texts: One text or several; see `modules.inference.occlusion.explain`.

        Raises:
            UserError: As `classify`.
        """
        return explain(self, [texts] if isinstance(texts, str) else texts)


class LabelsSamples(ClassifiesSamples):
    """A task whose classes do not exclude each other."""

    def classify(
        self,
        samples: "RawSample | Sequence[RawSample] | Tensor",
        top_k: int | None = None,
        threshold: float = 0.5,
    ) -> list[Any]:
        """Return the classes that apply to raw images or texts.

        Args:
            samples: As for `Classifier.classify`.
            top_k: Number of classes to return, whatever their probability; by default those of at
                least `threshold`.
            threshold: Probability from which on a class applies.

        Returns:
            For each sample a list of `(class name, probability)`, the most probable first.
        """
        ranked = super().classify(samples, top_k or len(self.class_names))
        if top_k is not None:
            return ranked
        return [[pair for pair in pairs if pair[1] >= threshold] for pairs in ranked]


class TagsTexts:
    """A task with BIO tags as `class_names`, and `tag_probabilities`.

    `tag_probabilities(words)` takes the words of each text. It returns the probabilities of the
    tags of all tokens, (B, T, C), and for each text the position of the first token of each word,
    without the words that were truncated.
    """

    class_names: list[str]
    tokenizer: Tokenizer | None
    tag_probabilities: Callable[[list[list[str]]], tuple[NDArray[np.float32], list[dict[int, int]]]]

    def tag(self, texts: str | Sequence[str]) -> list[list[Entity]]:
        """Find the entities of raw texts.

        Words are runs of letters and digits, and single punctuation marks. Words beyond the context
        of the network are not tagged, with a warning.

        Args:
            texts: One text or several.

        Returns:
            For each text its entities, in order, with their offsets in the raw text.

        Raises:
            UserError: If there is no text, or the task was trained without `tokenizer`.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.tokenizer is None:
            raise UserError("this TokenClassifier was trained without `tokenizer`.")
        if not texts:
            raise UserError("there is nothing to tag: pass at least one text.")
        spans = [split_words(text) for text in texts]
        words = [
            [text[start:end] for start, end in found]
            for text, found in zip(texts, spans, strict=True)
        ]
        probabilities, firsts = self.tag_probabilities(words)  # (B, T, C)
        tagged = list(zip(texts, spans, firsts, strict=True))
        if cut := sum(len(found) - 1 > max(first, default=0) for _, found, first in tagged):
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts are longer than the context of the network: "
                "their last words are not tagged.",
                stacklevel=2,
            )
        scores, tags = probabilities.max(axis=-1), probabilities.argmax(axis=-1)  # (B, T)
        results = []
        for row, (text, found, first) in enumerate(tagged):
            positions = list(first.values())
            values = scores[row, positions].tolist(), tags[row, positions].tolist()
            results.append(self._entities(text, [found[word] for word in first], *values))
        return results

    def _entities(
        self, text: str, words: list[tuple[int, int]], scores: list[float], tags: list[int]
    ) -> list[Entity]:
        entities = []
        for kind, first, end in find_entities([self.class_names[tag] for tag in tags]):
            start, stop = words[first][0], words[end - 1][1]
            score = sum(scores[first:end]) / (end - first)
            entities.append(Entity(kind, text[start:stop], start, stop, score))
        return entities


def batches_by_length(texts: Sequence[str], size: int) -> Iterator[list[int]]:
    """Yield the numbers of texts of similar length."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    for start in range(0, len(texts), size):
        yield order[start : start + size]
