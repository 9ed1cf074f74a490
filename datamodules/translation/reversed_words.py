"""A toy language that needs no data: every word has one translation, and the order is reversed."""

from typing import Any

import numpy as np

from datamodules.language_modeling.base import refuse
from datamodules.translation.base import ParallelTexts, TranslationDataModule

SYLLABLES = {"source": "ka lo mi ru se ta", "target": "ba do ge fi nu po"}


class ReversedWords(TranslationDataModule):
    """Random sentences, and the same word for word in another language, backwards.

    `kalo mika ruru` is `fifi geba bado`: there is one right translation, so that the share of
    sentences that are exactly right says how well the net has understood the language.

    Args:
        words: Different words of each language, 2 to 36.
        longest: Words of the longest sentence; the shortest has one.
        sizes: Sentences to train, validate and test.
        **translation: Other arguments of TranslationDataModule.
    """

    def __init__(
        self,
        words: int = 20,
        longest: int = 8,
        sizes: tuple[int, int, int] = (20_000, 500, 500),
        **translation: Any,
    ) -> None:
        super().__init__(tokenizer="words", min_count=1, **translation)
        refuse(
            {
                f"words is {words}: give 2 to 36.": not 2 <= words <= 36,
                f"longest is {longest}: a sentence has 1 word or more.": longest < 1,
                f"sizes are {sizes}: every split needs a sentence.": min(sizes) < 1,
            }
        )
        self.words = words
        self.longest = longest
        self.sizes = sizes

    def load(self) -> dict[str, ParallelTexts]:
        dictionary = [
            [first + second for first in syllables.split() for second in syllables.split()]
            for syllables in SYLLABLES.values()
        ]
        splits = {}
        for number, (split, size) in enumerate(
            zip(("train", "val", "test"), self.sizes, strict=True)
        ):
            random = np.random.default_rng(
                number
            )  # whatever the run's seed: the data stay the same
            lengths = random.integers(1, self.longest + 1, size)
            drawn = [random.integers(0, self.words, length) for length in lengths]
            splits[split] = ParallelTexts(
                [" ".join(dictionary[0][word] for word in sentence) for sentence in drawn],
                [" ".join(dictionary[1][word] for word in sentence[::-1]) for sentence in drawn],
            )
        return splits
