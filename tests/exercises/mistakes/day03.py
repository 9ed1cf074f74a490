"""Typical wrong solutions of day 3."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("batch_norm", "x.var(axis=0)", "x.var(axis=0, ddof=1)", "biased variance"),
    Mistake("batch_norm", "np.sqrt(x.var(axis=0) + eps)", "x.std(axis=0)", "add eps"),
    Mistake(
        "batch_norm", "np.sqrt(x.var(axis=0) + eps)", "(x.var(axis=0) + eps)", "standard deviation"
    ),
    Mistake(
        "batch_norm_backward",
        "(dy - dbeta / len(x) - normalized * dgamma / len(x))",
        "dy",
        "two terms are missing",
    ),
    Mistake("batch_norm_backward", " - normalized * dgamma / len(x)", "", "term of the variance"),
    Mistake("batch_norm_backward", "(dy * normalized)", "(dy * x)", "normalized input"),
    Mistake("update_running_statistics", ", ddof=1", "", "unbiased"),
    Mistake(
        "update_running_statistics",
        "(1 - momentum) * mean + momentum * x",
        "momentum * mean + (1 - momentum) * x",
        "weight of the new batch",
    ),
    Mistake("dropout", " / (1 - p)", "", "expectation is x"),
    Mistake("dropout", ">= p", "< p", "probability of 0"),
    Mistake("dropout", "rng.random(x.shape)", "rng.random(x.shape[-1])", "one number per value"),
    Mistake("plateau_learning_rates", "> patience", ">= patience", "more than `patience`"),
    Mistake("plateau_learning_rates", "lr * factor, 0", "lr * factor, bad_epochs", "starts again"),
]
