"""A toy translation task without data files: replace every word and reverse the order."""

from typing import Any

import numpy as np

from datamodules.translation.base import ParallelTexts, TranslationDataModule
from engine.errors import UserError

SYLLABLES = {"source": "ka lo mi ru se ta", "target": "ba do ge fi nu po"}


class ReversedWords(TranslationDataModule):
    """Random sentences and their word-by-word translation in reverse order.

    `kalo mika ruru` becomes `fifi geba bado`. There is one correct translation, so the fraction of
    exact matches measures the model directly.

    Args:
        words: Vocabulary of each language, 2 to 36 words.
        longest: Maximum words per sentence; the minimum is 1.
        sizes: Sentences for training, validation and test.
        tokenizer: See TranslationDataModule.
        **translation: Further arguments of TranslationDataModule.
    """

    def __init__(
        self,
        words: int = 20,
        longest: int = 8,
        sizes: tuple[int, int, int] = (20_000, 500, 500),
        tokenizer: str = "words",
        **translation: Any,
    ) -> None:
        super().__init__(tokenizer=tokenizer, min_count=1, **translation)
        if not 2 <= words <= 36:
            raise UserError(f"data.words must be 2 to 36, got {words}.")
        if longest < 1:
            raise UserError(f"data.longest must be at least 1, got {longest}.")
        if min(sizes) < 1:
            raise UserError(f"data.sizes must be at least 1 each, got {sizes}.")
        self.words = words
        self.longest = longest
        self.sizes = sizes

    def load(self) -> dict[str, ParallelTexts]:
        source, target = (
            [first + second for first in syllables.split() for second in syllables.split()]
            for syllables in SYLLABLES.values()
        )
        splits = {}
        for seed, (split, size) in enumerate(
            zip(("train", "val", "test"), self.sizes, strict=True)
        ):
            generator = np.random.default_rng(seed)  # the same data for every seed of a run
            lengths = generator.integers(1, self.longest + 1, size)
            sentences = [generator.integers(0, self.words, length) for length in lengths]
            splits[split] = ParallelTexts(
                [" ".join(source[word] for word in sentence) for sentence in sentences],
                [" ".join(target[word] for word in sentence[::-1]) for sentence in sentences],
            )
        return splits
