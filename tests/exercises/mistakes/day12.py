"""Typical wrong solutions of day 12."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "skip_gram_pairs",
        "range(first, last) if other != position",
        "range(position + 1, last)",
        "both sides",
    ),
    Mistake("skip_gram_pairs", "if other != position", "", "no context of itself"),
    Mistake(
        "skip_gram_pairs", "if other != position", "if words[other] != center", "compare positions"
    ),
    Mistake(
        "negative_sampling",
        "np.logaddexp(0, negative).sum()",
        "np.logaddexp(0, -negative).sum()",
        "minus sign",
    ),
    Mistake(
        "negative_sampling",
        "dpositive * context + dnegative @ negatives",
        "dpositive * context",
        "negatives contribute",
    ),
    Mistake(
        "negative_sampling",
        "np.logaddexp(0, -positive) +",
        "np.log(1 + np.exp(-positive)) +",
        "np.logaddexp",
    ),
    Mistake(
        "keep_probability",
        "np.maximum(frequency, threshold)",
        "np.maximum(frequency, 1e-12)",
        "at most 1",
    ),
    Mistake(
        "keep_probability",
        "np.sqrt(threshold / np.maximum(frequency, threshold))",
        "threshold / np.maximum(frequency, threshold)",
        "root is missing",
    ),
    Mistake("analogy", "similarity[[a, b, c]] = -np.inf", "pass", "exclude a, b and c"),
    Mistake("analogy", "unit[b] - unit[a]", "unit[a] - unit[b]", "b - a + c"),
    Mistake(
        "analogy",
        "vectors / np.linalg.norm(vectors, axis=1, keepdims=True)",
        "vectors",
        "normalize the vectors",
    ),
]
