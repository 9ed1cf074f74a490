"""Typical wrong solutions of day 39."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("stale_steps", "if stale.intersection", "if changed.intersection", "is stale, too"),
    Mistake("hash_split", "< val_percent", "<= val_percent", "below val_percent"),
    Mistake("hash_split", "salt + key", "key", "use the salt"),
    Mistake(
        "population_stability",
        "np.quantile(expected, np.arange(1, bins) / bins)",
        "np.linspace(expected.min(), expected.max(), bins + 1)[1:-1]",
        "equal width",
    ),
    Mistake(
        "population_stability", "(after - before) * np.log", "after * np.log", "Kullback-Leibler"
    ),
    Mistake(
        "population_stability",
        "np.maximum(counts / len(values), 1e-4)",
        "counts / len(values)",
        "log 0",
    ),
    Mistake(
        "stale_steps", "order.append(min(ready))", "order.append(ready[0])", "alphabetical order"
    ),
    Mistake(
        "stale_steps",
        "[step for step in order if step in stale]",
        "sorted(step for step in order if step in stale)",
        "comes after",
    ),
]
