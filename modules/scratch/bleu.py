"""BLEU from its formulas: n-gram precision of translations against references.

Papineni, Roukos, Ward & Zhu 2002, "BLEU: a method for automatic evaluation of machine translation".
Over all sentences together, for n-grams of n = 1 … 4 words:

    p_n   = Σ matches_n / Σ ngrams_n          an n-gram matches at most as often as in a reference
    BP    = 1 if c > r else exp(1 - r / c)    c translated words, r words of the closest references
    BLEU  = 100 · BP · exp(¼ Σ ln p_n)

If any p_n is 0, BLEU is 0. For single sentences Chen & Cherry 2014 propose smoothing, here as in
sacreBLEU (Post 2018):

    none    no smoothing
    floor   p_n = 0.1 / Σ ngrams_n                   if there is no match
    add-k   p_n = (matches + 1) / (ngrams + 1)       for n > 1
    exp     p_n = 1 / (2^k · Σ ngrams_n)             at the k-th n without a match

As in sacreBLEU, BLEU is 0 without a single match, and (except for `add-k`) if no sentence has four
words. Scores depend on the tokenization; sacreBLEU's "13a" keeps them comparable.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

MAX_ORDER = 4  # longest n-grams
SMOOTHINGS = ("none", "floor", "add-k", "exp")
Counts = Counter[tuple[str, ...]]


class Bleu(NamedTuple):
    """The score and its components."""

    score: float  # 0 … 100
    precisions: list[float]  # p_1 … p_4, 0 … 100
    brevity_penalty: float
    length: int  # words in the translations
    reference_length: int


def tokenizer_13a() -> Callable[[str], list[str]]:
    """Return the tokenizer of the WMT evaluations, from sacreBLEU."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a  # slow import

    tokenizer = Tokenizer13a()
    return lambda text: tokenizer(text.rstrip()).split()


def ngrams(words: Sequence[str], n: int) -> Counts:
    """Count every n-gram."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def bleu(
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    smoothing: str = "exp",
    tokenize: Callable[[str], list[str]] | None = None,
) -> Bleu:
    """Return the corpus BLEU.

    Args:
        translations: One text per sentence.
        references: One or more reference translations per sentence.
        smoothing: "none", "floor", "add-k" or "exp".
        tokenize: Splits a text into words; sacreBLEU's "13a" by default.

    Raises:
        ValueError: If the numbers of sentences differ, or a sentence has no reference.
    """
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"smoothing must be one of {', '.join(SMOOTHINGS)}, got {smoothing!r}")
    if len(translations) != len(references) or not translations:
        raise ValueError(
            f"BLEU needs one or more sentences with references, got {len(translations)} "
            f"translations and references for {len(references)}"
        )
    tokenize = tokenize or tokenizer_13a()
    matches, totals = [0] * MAX_ORDER, [0] * MAX_ORDER
    length = reference_length = 0
    for number, (translation, texts) in enumerate(zip(translations, references, strict=True), 1):
        if isinstance(texts, str) or not texts:
            raise ValueError(f"sentence {number} must have a list of references")
        words, others = tokenize(translation), [tokenize(text) for text in texts]
        length += len(words)
        # The reference of the closest length counts; the shorter one of two.
        closest = min((abs(len(other) - len(words)), len(other)) for other in others)
        reference_length += closest[1]
        for n in range(1, MAX_ORDER + 1):
            allowed: Counts = Counter()
            for other in others:
                allowed |= ngrams(other, n)  # the largest count in any reference
            found = ngrams(words, n)
            matches[n - 1] += (found & allowed).total()
            totals[n - 1] += found.total()
    precisions = smoothed(matches, totals, smoothing)
    penalty = 1.0
    if length < reference_length:
        penalty = math.exp(1 - reference_length / length) if length else 0.0
    score = 0.0
    if all(p > 0 for p in precisions):
        score = penalty * math.exp(sum(map(math.log, precisions)) / MAX_ORDER)
    return Bleu(score, precisions, penalty, length, reference_length)


def smoothed(matches: Sequence[int], totals: Sequence[int], smoothing: str) -> list[float]:
    """Return p_1 … p_4 in percent."""
    precisions = [0.0] * MAX_ORDER
    if not any(matches):
        return precisions
    divisor = 1.0
    for order, (found, total) in enumerate(zip(matches, totals, strict=True)):
        if smoothing == "add-k" and order:
            found, total = found + 1, total + 1
        if not total:
            break
        if found:
            precisions[order] = 100 * found / total
        elif smoothing == "exp":
            divisor *= 2
            precisions[order] = 100 / (divisor * total)
        elif smoothing == "floor":
            precisions[order] = 100 * 0.1 / total
    return precisions
