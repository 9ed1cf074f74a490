"""Typical wrong solutions of day 47."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "majority_baseline",
        "np.bincount(train_labels)",
        "np.bincount(test_labels)",
        "from the training data",
    ),
    Mistake("samples_needed", "math.ceil(", "int(", "round up"),
    Mistake("samples_needed", "(z_alpha + z_power) ** 2", "z_alpha**2", "power needs"),
    Mistake(
        "samples_needed", "(first - second) ** 2", "abs(first - second)", "square the difference"
    ),
    Mistake(
        "leaked_samples", "max(1, len(words) - n + 1)", "len(words) - n + 1", "fewer than n words"
    ),
    Mistake(
        "leaked_samples",
        "(len(own) + len(grams[other]) - number)",
        "min(len(own), len(grams[other]))",
        "divide by the union",
    ),
    Mistake("leaked_samples", ">= threshold", "> threshold", "use >="),
    Mistake(
        "leaked_samples",
        "Counter(other for gram in own for other in texts_with.get(gram, ()))",
        "{other: len(own & grams[other]) for other in range(len(train))}",
        "build an index",
    ),
]
