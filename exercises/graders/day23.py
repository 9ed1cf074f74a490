"""Grader of day 23."""

from collections import Counter
from itertools import pairwise

from exercises import expect
from exercises.grading import Task

CORPUS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}


def pairs_of_words(count_pairs):
    words = {("l", "o", "w"): 5, ("l", "o", "t"): 2, ("s", "o"): 1}
    right = {("l", "o"): 7, ("o", "w"): 5, ("o", "t"): 2, ("s", "o"): 1}
    hint = "weight each pair by the frequency of its word."
    once = {("l", "o"): 2, ("o", "w"): 1, ("o", "t"): 1, ("s", "o"): 1}
    expect.equal(dict(count_pairs(words)), right, {hint: once})


def overlapping_pairs(count_pairs):
    hint = "overlapping pairs count: 'aaa' has (a, a) twice."
    expect.equal(dict(count_pairs({("a", "a", "a"): 3})), {("a", "a"): 6}, {hint: {("a", "a"): 3}})
    expect.equal(dict(count_pairs({("a",): 3})), {})


def merged_words(merge_pair):
    result = merge_pair(("n", "e", "w", "e", "s", "t", "e", "s"), ("e", "s"))
    first = "replace every occurrence, not only the first."
    mistakes = {
        first: ("n", "e", "w", "es", "t", "e", "s"),
        "skip both symbols of a merge.": ("n", "e", "w", "es", "s", "t", "es", "s"),
    }
    expect.equal(result, ("n", "e", "w", "es", "t", "es"), mistakes)
    expect.equal(
        merge_pair(("a", "b"), ("b", "a")), ("a", "b"), {"the order of a pair matters.": ("ba",)}
    )


def merges_of_repeated_symbols(merge_pair):
    mistakes = {
        "go from left to right and skip both symbols of a merge.": ("aa", "aa"),
        "from left to right: the odd symbol is the last one.": ("a", "aa"),
    }
    expect.equal(merge_pair(("a", "a", "a"), ("a", "a")), ("aa", "a"), mistakes)
    longer = merge_pair(("ab", "c", "a", "bc"), ("ab", "c"))
    hint = "compare symbols, not the joined text."
    expect.equal(longer, ("abc", "a", "bc"), {hint: ("abc", "abc")})


def _merges(corpus, number, weighted=True, tie=min):
    words = {word: list(word) for word in corpus}
    merges = []
    for _ in range(number):
        counts = Counter()
        for word, symbols in words.items():
            for pair in pairwise(symbols):
                counts[pair] += corpus[word] if weighted else 1
        top = max(counts.values(), default=0)
        if top < 2:
            break
        best = tie(pair for pair in counts if counts[pair] == top)
        merges.append(best)
        for symbols in words.values():
            position = 0
            while position < len(symbols) - 1:
                if (symbols[position], symbols[position + 1]) == best:
                    symbols[position : position + 2] = ["".join(best)]
                position += 1
    return merges


def merges_of_a_corpus(learn_merges):
    right = _merges(CORPUS, 8)
    first = Counter(pair for word, n in CORPUS.items() for pair in pairwise(word) for _ in range(n))
    once = sorted(first, key=lambda pair: (-first[pair], pair))[:8]
    mistakes = {
        "weight each pair by the frequency of its word.": _merges(CORPUS, 8, weighted=False),
        "of equally frequent pairs take the first in alphabetical order.": _merges(
            CORPUS, 8, tie=max
        ),
        "count again after each merge.": once,
    }
    expect.equal(learn_merges(dict(CORPUS), 8), right, mistakes)


def merges_end_early(learn_merges):
    hint = "stop if no pair occurs twice."
    expect.equal(
        learn_merges({"ab": 2, "cd": 1}, 5), [("a", "b")], {hint: [("a", "b"), ("c", "d")]}
    )
    expect.equal(learn_merges({"a": 7}, 3), [])


def encoded_words(encode_bpe):
    merges = [("e", "s"), ("es", "t"), ("l", "o"), ("lo", "w"), ("w", "est")]
    expect.equal(encode_bpe("lowest", merges), ["low", "est"])
    expect.equal(encode_bpe("xyz", merges), ["x", "y", "z"])
    expect.equal(encode_bpe("", merges), [])


def order_of_merges(encode_bpe):
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    mistakes = {"merge the pair that was learned first, not the leftmost one.": ["abc"]}
    expect.equal(encode_bpe("abc", merges), ["a", "bc"], mistakes)
    hint = "a merge may make a pair of an earlier rank possible: look at all pairs again."
    merges = [("ab", "c"), ("a", "b"), ("c", "d")]
    expect.equal(encode_bpe("abcd", merges), ["abc", "d"], {hint: ["ab", "cd"]})


def wordpieces(encode_wordpiece):
    vocab = {"un", "una", "##aff", "##able", "##ff", "##a", "##b", "##l", "##e", "able"}
    mistakes = {
        "take the longest token, not the shortest.": "un ##a ##ff ##a ##b ##l ##e".split(),
        "tokens inside of a word begin with ##.": ["una", "ff", "able"],
    }
    expect.equal(encode_wordpiece("unaffable", vocab), ["una", "##ff", "##able"], mistakes)
    mistakes = {"take the longest token, not the shortest.": ["un"]}
    expect.equal(encode_wordpiece("una", vocab), ["una"], mistakes)


def unknown_words(encode_wordpiece):
    hint = {
        "the whole word is [UNK], not a part of it.": ["un", "[UNK]"],
        "a part has no token: return [UNK].": ["un"],
    }
    expect.equal(encode_wordpiece("unx", {"un", "##y", "able"}), ["[UNK]"], hint)
    hint = "a token that begins a word cannot continue one."
    expect.equal(encode_wordpiece("unable", {"un", "able"}), ["[UNK]"], {hint: ["un", "able"]})


TASKS = [
    Task("count_pairs", [pairs_of_words, overlapping_pairs]),
    Task("merge_pair", [merged_words, merges_of_repeated_symbols]),
    Task("learn_merges", [merges_of_a_corpus, merges_end_early]),
    Task("encode_bpe", [encoded_words, order_of_merges]),
    Task("encode_wordpiece", [wordpieces, unknown_words]),
]
