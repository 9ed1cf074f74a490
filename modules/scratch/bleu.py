"""BLEU from its formulas: how many of a translation's words and runs of words a person wrote, too.

Papineni, Roukos, Ward & Zhu 2002, "BLEU: a method for automatic evaluation of machine translation".
Over all sentences together, for runs of n = 1 … 4 words:

    p_n   = Σ matches_n / Σ runs_n            a run counts as often as the reference has it at most
    BP    = 1 if c > r else exp(1 - r / c)    c words of ours, r of the references that are nearest
    BLEU  = 100 · BP · exp(¼ Σ ln p_n)

One p_n of 0 makes BLEU 0, as in the paper. That is hard on single sentences; the smoothings of Chen
& Cherry 2014, as sacreBLEU has them (Post 2018), put something in its place:

    none    0 stays 0
    floor   p_n = 0.1 / Σ runs_n                     where there is no match
    add-k   p_n = (matches + 1) / (runs + 1)         for n > 1
    exp     p_n = 1 / (2^k · Σ runs_n)               at the k-th n without a match

As in sacreBLEU, no smoothing helps where there is not a single match at all, and for n that no text
is long enough for, none of the smoothings but `add-k` has anything to say: BLEU is then 0. How a
sentence is cut into words decides the number: sacreBLEU's own "13a" is taken from there, for the
scores of different people to be of one kind.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

LONGEST = 4  # words in a run
SMOOTHINGS = ("none", "floor", "add-k", "exp")
Counts = Counter[tuple[str, ...]]


class Bleu(NamedTuple):
    """The score and what it is made of."""

    score: float  # 0 … 100
    precisions: list[float]  # p_1 … p_4, 0 … 100
    brevity_penalty: float
    length: int  # words of the translations
    reference_length: int


def words_13a() -> Callable[[str], list[str]]:
    """How the Workshop on Machine Translation cuts a text into words, by sacreBLEU's own code."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # only scores need the library

    cut = Tokenizer13a()
    return lambda text: cut(text.rstrip()).split()


def runs(words: Sequence[str], n: int) -> Counts:
    """Every run of n words, and how often it occurs."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def bleu(
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    smoothing: str = "exp",
    cut: Callable[[str], list[str]] | None = None,
) -> Bleu:
    """BLEU of a set of sentences.

    Args:
        translations: One text a sentence.
        references: For each sentence, one or more translations by people.
        smoothing: "none", "floor", "add-k" or "exp".
        cut: How a text becomes words; "13a" by default.

    Raises:
        ValueError: If the numbers of sentences differ, or a sentence has no reference.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {', '.join(SMOOTHINGS)}, not {smoothing!r}")
    if len(translations) != len(references) or not translations:
        raise ValueError(
            f"there are {len(translations)} translations and references for {len(references)}: "
            "BLEU needs as many of both, and one at least"
        )
    cut = cut or words_13a()
    matches, totals = [0] * LONGEST, [0] * LONGEST
    length = reference_length = 0
    for number, (translation, others) in enumerate(zip(translations, references, strict=True), 1):
        if isinstance(others, str) or not others:
            raise ValueError(f"sentence {number} has no list of references")
        ours, theirs = cut(translation), [cut(other) for other in others]
        length += len(ours)
        # The reference whose length is nearest counts; of two, the shorter one.
        nearest = min((abs(len(other) - len(ours)), len(other)) for other in theirs)
        reference_length += nearest[1]
        for n in range(1, LONGEST + 1):
            allowed: Counts = Counter()
            for other in theirs:
                allowed |= runs(other, n)  # as often as any of them has the run
            found = runs(ours, n)
            matches[n - 1] += (found & allowed).total()
            totals[n - 1] += found.total()
    precisions = smoothed(matches, totals, smoothing)
    penalty = 1.0
    if length < reference_length:
        penalty = math.exp(1 - reference_length / length) if length else 0.0
    score = 0.0
    if all(p > 0 for p in precisions):
        score = penalty * math.exp(sum(map(math.log, precisions)) / LONGEST)
    return Bleu(score, precisions, penalty, length, reference_length)


def smoothed(matches: Sequence[int], totals: Sequence[int], smoothing: str) -> list[float]:
    """p_1 … p_4 in percent."""
    precisions = [0.0] * LONGEST
    if not any(matches):
        return precisions
    halved = 1.0
    for place, (found, total) in enumerate(zip(matches, totals, strict=True)):
        if smoothing == "add-k" and place:
            found, total = found + 1, total + 1
        if not total:
            break
        if found:
            precisions[place] = 100 * found / total
        elif smoothing == "exp":
            halved *= 2
            precisions[place] = 100 / (halved * total)
        elif smoothing == "floor":
            precisions[place] = 100 * 0.1 / total
    return precisions
