"""Typical wrong solutions of day 32."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("layer_rates", "layers + 1 - depth", "depth", "later layers"),
    Mistake("layer_rates", "layers + 1 - depth", "max(0, layers - depth)", "the head lr"),
    Mistake(
        "linear_schedule",
        "max(0.0, (total_steps - step) / (total_steps - warmup))",
        "(total_steps - step) / (total_steps - warmup)",
        "stays 0",
    ),
    Mistake("linear_schedule", "(total_steps - warmup)", "total_steps", "end of the warm-up"),
    Mistake("matthews_correlation", " if scale > 0 else 0.0", "", "0 / 0"),
    Mistake(
        "matthews_correlation",
        "float((a * b).sum() / scale)",
        "float(np.mean(labels == predictions))",
        "this is the accuracy",
    ),
    Mistake("spearman", "np.corrcoef(ranks(x), ranks(y))", "np.corrcoef(x, y)", "use ranks"),
    Mistake("spearman", "(np.cumsum(counts) - (counts - 1) / 2)", "np.cumsum(counts)", "mean rank"),
]
