"""Typical wrong solutions of day 7."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "macro_f1",
        "np.mean(2 * hits / np.maximum(total, 1))",
        "np.mean(labels == predictions)",
        "this is the accuracy",
    ),
    Mistake(
        "macro_f1",
        "np.mean(2 * hits / np.maximum(total, 1))",
        "np.nanmean(2 * hits / total)",
        "counts as 0",
    ),
    Mistake(
        "macro_f1",
        "np.mean(2 * hits / np.maximum(total, 1))",
        "np.average(2 * hits / np.maximum(total, 1), weights=np.bincount(labels, minlength=num_classes))",
        "by their frequency",
    ),
    Mistake(
        "roc_auc", "(np.cumsum(counts) - (counts - 1) / 2)", "np.cumsum(counts)", "count one half"
    ),
    Mistake("roc_auc", "np.unique(scores", "np.unique(-scores", "higher scores"),
    Mistake(
        "bootstrap_interval",
        "chosen = rng.integers(len(values), size=(resamples, len(values)))",
        "chosen = rng.permuted(np.tile(np.arange(len(values)), (resamples, 1)), axis=1)",
        "with replacement",
    ),
    Mistake(
        "bootstrap_interval", "np.quantile(means,", "np.quantile(values,", "quantiles of the means"
    ),
    Mistake(
        "bootstrap_interval",
        "[(1 - level) / 2, (1 + level) / 2]",
        "[1 - level, level]",
        "2.5 % and 97.5 %",
    ),
    Mistake("mcnemar_p_value", "2 * sum(", "sum(", "two-sided"),
    Mistake(
        "mcnemar_p_value",
        "min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n)",
        "2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n",
        "at most 1",
    ),
    Mistake(
        "mcnemar_p_value", "range(fewer + 1)", "range(fewer, fewer + 1)", "sum the probabilities"
    ),
]
