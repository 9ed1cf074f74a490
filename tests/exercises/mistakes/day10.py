"""Typical wrong solutions of day 10."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake("smoothed_cross_entropy", "(1 - smoothing) * right", "right", "factor 1 - ε"),
    Mistake(
        "smoothed_cross_entropy",
        "smoothing * losses.mean()",
        "smoothing * losses.sum(dim=1).mean()",
        "divide the sum over classes",
    ),
    Mistake(
        "smoothed_cross_entropy",
        "-logits.log_softmax(dim=1)",
        "-logits.softmax(dim=1).log()",
        "log of a softmax",
    ),
    Mistake("one_cycle", "(1 - progress) / (1 - warmup)", "(1 - progress)", "divide by 1 - warmup"),
    Mistake(
        "shift",
        "result[:, rows, columns] = images[:, source_rows, source_columns]",
        "result = np.roll(images, (down, right), (1, 2))",
        "np.roll needs zeros",
    ),
    Mistake(
        "shift",
        "result[:, rows, columns] = images[:, source_rows, source_columns]",
        "result[:, source_rows, source_columns] = images[:, rows, columns]",
        "opposite direction",
    ),
    Mistake(
        "ensemble_nll",
        "log_mean = highest + np.log(np.exp(of_labels - highest).mean(axis=0))",
        "log_mean = of_labels.mean(axis=0)",
        "not log-probabilities",
    ),
    Mistake("ensemble_nll", "highest = of_labels.max(axis=0)", "highest = 0.0", "log-sum-exp"),
]
