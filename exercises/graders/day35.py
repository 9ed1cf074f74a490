"""Grader of day 35."""

import math
from functools import cache
from itertools import pairwise

from exercises import expect
from exercises.grading import Task

HYPOTHESIS = "the the the cat sat on the mat".split()
REFERENCE = "the cat is on the mat".split()
HYPOTHESES = [
    ["a", "dog", "runs", "over", "a", "green", "field"],
    ["two", "men", "sit", "in", "a", "car"],
]
REFERENCES = [
    ["a", "dog", "runs", "over", "the", "green", "field", "today"],
    ["two", "men", "sit", "in", "a", "red", "car", "outside"],
]


def _matches(hypothesis, reference, n):
    """Count matches by striking each n-gram off the reference."""
    grams = [
        list(zip(*(tokens[i:] for i in range(n)), strict=False))
        for tokens in (hypothesis, reference)
    ]
    left = list(grams[1])
    matches = 0
    for gram in grams[0]:
        if gram in left:
            left.remove(gram)
            matches += 1
    return matches, len(grams[0])


def clipped_matches(ngram_matches):
    for n in (1, 2):
        grams = list(zip(*(HYPOTHESIS[i:] for i in range(n)), strict=False))
        right = _matches(HYPOTHESIS, REFERENCE, n)
        known = set(zip(*(REFERENCE[i:] for i in range(n)), strict=False))
        unclipped = sum(gram in known for gram in grams)
        mistakes = {}
        if unclipped != right[0]:
            mistakes["clip: 'the' occurs twice in the reference."] = (unclipped, right[1])
        distinct = len(set(grams) & known), len(set(grams))
        mistakes["count repeated n-grams, too."] = distinct
        mistakes["the second number is that of the hypothesis."] = right[0], len(REFERENCE) - n + 1
        expect.equal(
            ngram_matches(HYPOTHESIS, REFERENCE, n), right, mistakes, f"the result for n = {n}"
        )


def matches_of_short_texts(ngram_matches):
    expect.equal(ngram_matches(["a"], ["a", "b"], 2), (0, 0))
    expect.equal(ngram_matches([], ["a"], 1), (0, 0))


def _bleu(hypotheses, references, penalty=True):
    product = 1.0
    for n in range(1, 5):
        counts = [_matches(h, r, n) for h, r in zip(hypotheses, references, strict=True)]
        product *= sum(c[0] for c in counts) / max(1, sum(c[1] for c in counts))
    c, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 100 * product**0.25 * (min(1, math.exp(1 - r / c)) if penalty else 1)


def bleu_of_a_corpus(bleu):
    right = _bleu(HYPOTHESES, REFERENCES)
    sentences = [_bleu([h], [r]) for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
    c, r = 13, 16
    mistakes = {
        "the score is from 0 to 100.": right / 100,
        "the brevity penalty is missing.": _bleu(HYPOTHESES, REFERENCES, penalty=False),
        "add up the counts of the corpus; do not average sentences.": sum(sentences) / 2,
        "the brevity penalty is exp(1 - r / c), not c / r.": _bleu(HYPOTHESES, REFERENCES, False)
        * c
        / r,
        "take the mean of the logarithms: divide by N.": 100
        * (right / 100 / math.exp(1 - r / c)) ** 4
        * math.exp(1 - r / c),
    }
    expect.close(bleu(HYPOTHESES, REFERENCES), right, mistakes)


def bleu_of_long_and_equal_texts(bleu):
    expect.close(bleu(REFERENCES, REFERENCES), 100.0)
    long = [[*tokens, "and", "more"] for tokens in REFERENCES]
    right = _bleu(long, REFERENCES)
    bonus = right * math.exp(1 - 16 / 20)
    expect.close(bleu(long, REFERENCES), right, {"the brevity penalty is at most 1.": bonus})


def bleu_without_matches(bleu):
    expect.close(bleu([["a", "b", "c", "d"]], [["e", "f", "g", "h"]]), 0.0)


def _rouge(hypothesis, reference):
    @cache
    def common(i, j):
        if i == len(hypothesis) or j == len(reference):
            return 0
        if hypothesis[i] == reference[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    length = common(0, 0)
    return 2 * length / (len(hypothesis) + len(reference)), length


def rouge_of_a_summary(rouge_l):
    hypothesis = "police killed the gunman in the street".split()
    reference = "the police have killed a gunman in street".split()
    right, length = _rouge(hypothesis, reference)
    words = len(set(hypothesis) & set(reference))
    longest_run = max(
        (
            size
            for size in range(8)
            for i in range(8)
            if " ".join(hypothesis[i : i + size]) in " ".join(reference)
        ),
        default=0,
    )
    mistakes = {
        "this is the recall; return F1.": length / len(reference),
        "this is the precision; return F1.": length / len(hypothesis),
        "the order counts: use the longest common subsequence.": 2 * words / 15,
        "a subsequence may have gaps.": 2 * longest_run / 15,
    }
    expect.close(rouge_l(hypothesis, reference), right, mistakes)


def rouge_without_common_words(rouge_l):
    expect.close(rouge_l(["a"], ["b"]), 0.0)
    expect.close(rouge_l([], ["b"]), 0.0)


def rouge_time(rouge_l):
    first = [str(i * 7 % 31) for i in range(150)]
    second = [str(i * 11 % 29) for i in range(150)]
    hint = "keep a table of the lengths of all prefixes instead of trying all subsequences."
    expect.faster_than(0.5, lambda: rouge_l(first, second), hint, attempts=1)


def perplexity_of_batches(perplexity):
    losses, tokens = [2.0, 4.0], [300, 100]
    mistakes = {
        "weight each batch by its tokens.": math.exp(3.0),
        "average the losses before exp, not the perplexities.": (3 * math.exp(2.0) + math.exp(4.0))
        / 4,
        "the losses are in nats: use exp, not 2 to the power.": 2**2.5,
    }
    expect.close(perplexity(losses, tokens), math.exp(2.5), mistakes)


def perplexity_of_a_uniform_model(perplexity):
    for number in (2, 65):
        expect.close(perplexity([math.log(number)], [10]), float(number))
    values = [perplexity([loss], [1]) for loss in (0.0, 1.0)]
    expect.true(
        all(low < high for low, high in pairwise(values)),
        "a higher loss must be a higher perplexity.",
    )


def bits_of_a_text(bits_per_byte):
    text = "Größe 世界"
    right = 2.0 * 5 / math.log(2) / 14
    mistakes = {
        "count bytes of UTF-8, not characters.": right * 14 / len(text),
        "nats become bits by division by ln 2.": 2.0 * 5 / 14,
        "divide by ln 2, do not multiply.": 2.0 * 5 * math.log(2) / 14,
        "multiply the loss per token by the number of tokens.": 2.0 / math.log(2) / 14,
    }
    expect.close(bits_per_byte(2.0, 5, text), right, mistakes)


TASKS = [
    Task("ngram_matches", [clipped_matches, matches_of_short_texts]),
    Task("bleu", [bleu_of_a_corpus, bleu_of_long_and_equal_texts, bleu_without_matches]),
    Task("rouge_l", [rouge_of_a_summary, rouge_without_common_words, rouge_time]),
    Task("perplexity", [perplexity_of_batches, perplexity_of_a_uniform_model]),
    Task("bits_per_byte", [bits_of_a_text]),
]
