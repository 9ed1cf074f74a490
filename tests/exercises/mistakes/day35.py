"""Typical wrong solutions of day 35."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "ngram_matches",
        "(found & expected).total()",
        "sum(found[key] for key in found if key in expected)",
        "clip",
    ),
    Mistake(
        "ngram_matches",
        "(found & expected).total(), found.total()",
        "len(found & expected), len(found)",
        "repeated n-grams",
    ),
    Mistake("ngram_matches", ", found.total()", ", expected.total()", "that of the hypothesis"),
    Mistake("bleu", "100 * brevity_penalty", "100", "brevity penalty is missing"),
    Mistake(
        "bleu",
        "min(1.0, math.exp(1 - lengths[0] / lengths[1]))",
        "math.exp(1 - lengths[0] / lengths[1])",
        "at most 1",
    ),
    Mistake("bleu", " / max_n", "", "divide by N"),
    Mistake("bleu", "100 * brevity", "brevity", "from 0 to 100"),
    Mistake("rouge_l", "2 * precision * recall / (precision + recall)", "recall", "return F1"),
    Mistake("rouge_l", "2 * precision * recall / (precision + recall)", "precision", "return F1"),
    Mistake(
        "rouge_l",
        "common = row[-1]",
        "common = len(set(hypothesis) & set(reference))",
        "the order counts",
    ),
    Mistake(
        "perplexity",
        "math.exp(total / sum(tokens))",
        "math.exp(sum(losses) / len(losses))",
        "weight each batch",
    ),
    Mistake("perplexity", "math.exp(total", "2 ** (total", "in nats"),
    Mistake("bits_per_byte", "text.encode()", "text", "not characters"),
    Mistake("bits_per_byte", " / math.log(2)", "", "division by ln 2"),
]
