"""Typical wrong solutions of day 1."""

from tests.exercises.mistakes import Mistake

MISTAKES = [
    Mistake(
        "softmax", " - scores.max(axis=-1, keepdims=True)", "", "subtract the maximum of each row"
    ),
    Mistake("softmax", "sum(axis=-1", "sum(axis=0", "not over the batch"),
    Mistake(
        "softmax", "exponentials.sum(axis=-1, keepdims=True)", "exponentials.sum()", "keepdims"
    ),
    Mistake("cross_entropy", "np.mean(", "np.sum(", "average over the batch"),
    Mistake(
        "cross_entropy",
        "shifted = scores - scores.max(axis=1, keepdims=True)",
        "shifted = scores",
        "s - max",
    ),
    Mistake("train_epoch", "optimizer.zero_grad()", "pass", "zero_grad"),
    Mistake("train_epoch", "net.train()", "pass", "net.train()"),
    Mistake("train_epoch", "loss.item()", "loss", "keeps the graphs"),
    Mistake(
        "confusion_matrix",
        "num_classes * labels + predictions",
        "num_classes * predictions + labels",
        "rows are true",
    ),
]
