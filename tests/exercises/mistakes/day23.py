"""Typical wrong solutions of day 23."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("count_pairs", "+= frequency", "+= 1", "frequency of its word"),
    Mistake("merge_pair", "position += 2", "position += 1", "skip both symbols"),
    Mistake(
        "merge_pair",
        "symbols[position : position + 2] == pair",
        'symbols[position : position + 2] == pair and "".join(pair) not in merged',
        "not only the first",
    ),
    Mistake(
        "learn_merges",
        "(-counts[pair], pair)",
        "(-counts[pair], -ord(pair[0][0]))",
        "alphabetical order",
    ),
    Mistake("learn_merges", "counts.get(best, 0) < 2", "not counts", "occurs twice"),
    Mistake(
        "learn_merges",
        "symbols[spellings[word]] += frequency",
        "symbols[spellings[word]] += 1",
        "frequency of its word",
    ),
    Mistake(
        "encode_bpe", "min(known, key=lambda pair: ranks[pair])", "known[0]", "not the leftmost"
    ),
    Mistake(
        "encode_bpe",
        "while known := [pair for pair in pairwise(symbols) if pair in ranks]:\n        symbols = merge_pair(symbols, min(known, key=lambda pair: ranks[pair]))",
        "for pair in merges:\n        symbols = merge_pair(symbols, pair)",
        "earlier rank",
    ),
    Mistake(
        "encode_wordpiece",
        "range(len(word), start, -1)",
        "range(start + 1, len(word) + 1)",
        "not the shortest",
    ),
    Mistake(
        "encode_wordpiece", 'return ["[UNK]"]', 'return [*tokens, "[UNK]"]', "whole word is [UNK]"
    ),
    Mistake("encode_wordpiece", '"##" if start else ""', '""', "cannot continue one"),
]
