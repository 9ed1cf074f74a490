"""Typical wrong solutions of day 18."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("naive_bayes", "@ counts + alpha", "@ counts", "add α"),
    Mistake(
        "naive_bayes",
        "words.sum(axis=1, keepdims=True)",
        "(words - alpha).sum(axis=1, keepdims=True)",
        "denominator needs α V",
    ),
    Mistake(
        "naive_bayes", "words.sum(axis=1, keepdims=True)", "words.sum(axis=0)", "words of a class"
    ),
    Mistake("max_over_time", " * complete[:, :, None]", "", "windows with padding"),
    Mistake(
        "max_over_time",
        "mask[:, weight.shape[1] - 1 :]",
        "mask[:, : activations.shape[1]]",
        "not only its first",
    ),
    Mistake("max_over_time", ".amax(dim=1)", ".mean(dim=1)", "not the mean"),
    Mistake("balanced_weights", "present.sum() * ", "", "divide by the number of classes"),
    Mistake("balanced_weights", "present.sum()", "num_classes", "that occur only"),
    Mistake(
        "balanced_weights",
        "np.maximum(counts, 1)), 0.0)",
        "np.maximum(counts, 1e-300)), np.inf)",
        "has weight 0",
    ),
]
