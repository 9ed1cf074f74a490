"""Typical wrong solutions of day 8."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "log_uniform",
        "np.exp(rng.uniform(np.log(low), np.log(high), size))",
        "rng.uniform(low, high, size)",
        "sample the logarithm",
    ),
    Mistake("log_uniform", "np.exp(rng", "10 ** (rng", "apply exp"),
    Mistake(
        "probability_of_success",
        "1 - (1 - fraction) ** trials",
        "min(1.0, trials * fraction)",
        "use the complement",
    ),
    Mistake(
        "probability_of_success",
        "(1 - fraction) ** trials",
        "fraction**trials",
        "misses with probability",
    ),
    Mistake("expected_improvement", " + std * density", "", "uncertain candidates"),
    Mistake(
        "expected_improvement",
        "gain = best - mean",
        "gain = mean - best",
        "lower losses are better",
    ),
    Mistake(
        "successive_halving",
        "candidates = ranked[: max(1, len(ranked) // eta)]",
        "candidates = ranked if epochs < max_epochs else ranked[:1]",
        "best third",
    ),
    Mistake(
        "successive_halving",
        "key=lambda candidate: losses[candidate]",
        "key=lambda candidate: -losses[candidate]",
        "lowest loss",
    ),
    Mistake(
        "successive_halving",
        "epochs = min(epochs * eta, max_epochs)",
        "epochs = epochs * eta\n        if epochs > 16:\n            return candidates[0]",
        "more than max_epochs",
    ),
]
