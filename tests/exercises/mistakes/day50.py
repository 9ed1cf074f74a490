"""Typical wrong solutions of day 50."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("holm", "(len(p_values) - rank) * p", "len(p_values) * p", "Bonferroni"),
    Mistake(
        "holm",
        "max(largest, (len(p_values) - rank) * p_values[index])",
        "(len(p_values) - rank) * p_values[index]",
        "those before it",
    ),
    Mistake("holm", "min(1.0, largest)", "largest", "at most 1"),
    Mistake(
        "paired_interval",
        "differences[chosen].mean(axis=1)",
        "first[chosen].mean(axis=1) - second[rng.permuted(chosen, axis=None)].mean(axis=1)",
        "resample both",
    ),
    Mistake(
        "paired_interval",
        "first.astype(float) - second",
        "second.astype(float) - first",
        "mean(first) - mean(second)",
    ),
    Mistake("format_result", "ddof=1", "ddof=0", "divide by n - 1"),
    Mistake(
        "format_result",
        "if round(deviation, decimals) >= 10 ** (1 - decimals)",
        "if False",
        "two decimals",
    ),
    Mistake("format_result", "if deviation == 0", "if len(values) == 1", "domain"),
]
