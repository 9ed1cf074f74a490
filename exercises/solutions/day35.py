"""Solutions of day 35."""

import math
from collections import Counter

Tokens = list[str]


def ngram_matches(hypothesis: Tokens, reference: Tokens, n: int) -> tuple[int, int]:
    def ngrams(tokens: Tokens) -> Counter[tuple[str, ...]]:
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    found, expected = ngrams(hypothesis), ngrams(reference)
    return (found & expected).total(), found.total()


def bleu(hypotheses: list[Tokens], references: list[Tokens], max_n: int = 4) -> float:
    log_precision = 0.0
    for n in range(1, max_n + 1):
        pairs = zip(hypotheses, references, strict=True)
        counts = [ngram_matches(hypothesis, reference, n) for hypothesis, reference in pairs]
        matches, number = (sum(column) for column in zip(*counts, strict=True))
        if matches == 0:
            return 0.0
        log_precision += math.log(matches / number) / max_n
    lengths = sum(map(len, references)), sum(map(len, hypotheses))
    brevity_penalty = min(1.0, math.exp(1 - lengths[0] / lengths[1]))
    return 100 * brevity_penalty * math.exp(log_precision)


def rouge_l(hypothesis: Tokens, reference: Tokens) -> float:
    row = [0] * (len(reference) + 1)
    for token in hypothesis:
        previous = row
        row = [0]
        for position, other in enumerate(reference):
            if token == other:
                row.append(previous[position] + 1)
            else:
                row.append(max(previous[position + 1], row[-1]))
    common = row[-1]
    if common == 0:
        return 0.0
    precision, recall = common / len(hypothesis), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def perplexity(losses: list[float], tokens: list[int]) -> float:
    total = sum(loss * number for loss, number in zip(losses, tokens, strict=True))
    return math.exp(total / sum(tokens))


def bits_per_byte(loss: float, tokens: int, text: str) -> float:
    return loss * tokens / math.log(2) / len(text.encode())
