"""Solutions of day 23."""

from collections import Counter
from itertools import pairwise

Pair = tuple[str, str]


def count_pairs(words: dict[tuple[str, ...], int]) -> dict[Pair, int]:
    counts: Counter[Pair] = Counter()
    for symbols, frequency in words.items():
        for pair in pairwise(symbols):
            counts[pair] += frequency
    return dict(counts)


def merge_pair(symbols: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    merged: list[str] = []
    position = 0
    while position < len(symbols):
        if symbols[position : position + 2] == pair:
            merged.append("".join(pair))
            position += 2
        else:
            merged.append(symbols[position])
            position += 1
    return tuple(merged)


def learn_merges(words: dict[str, int], number: int) -> list[Pair]:
    spellings = {word: tuple(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < number:
        symbols: Counter[tuple[str, ...]] = Counter()
        for word, frequency in words.items():
            symbols[spellings[word]] += frequency
        counts = count_pairs(symbols)
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=("", ""))
        if counts.get(best, 0) < 2:
            break
        merges.append(best)
        spellings = {word: merge_pair(spelling, best) for word, spelling in spellings.items()}
    return merges


def encode_bpe(word: str, merges: list[Pair]) -> list[str]:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = tuple(word)
    while known := [pair for pair in pairwise(symbols) if pair in ranks]:
        symbols = merge_pair(symbols, min(known, key=lambda pair: ranks[pair]))
    return list(symbols)


def encode_wordpiece(word: str, vocab: set[str]) -> list[str]:
    tokens: list[str] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in vocab), None)
        if end is None:
            return ["[UNK]"]
        tokens.append(prefix + word[start:end])
        start = end
    return tokens
